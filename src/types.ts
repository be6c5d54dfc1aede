// Types shared by several layers. Knows nothing about graphs, files or runtimes.

/** Element types that unmask computes with or stores. */
export type DType = 'float32' | 'float16' | 'int64' | 'int32' | 'int8' | 'uint8' | 'bool'

export type TypedArray = Float32Array | Uint16Array | Int32Array | BigInt64Array | Int8Array | Uint8Array

/** A dense row-major tensor on the host. float16 is held as its bits in a Uint16Array, bool as 0/1 bytes. */
export interface TensorData {
  dtype: DType
  shape: readonly number[]
  data: TypedArray
}

/** A named float32 parameter on the host. */
export interface Parameter {
  shape: readonly number[]
  data: Float32Array
}

/** The contents of a Hugging Face `config.json`, as read: keys keep their snake_case names. */
export type ModelConfig = Record<string, unknown> & { model_type: string }

/** An error a user can act on: wrong flag, wrong file, wrong setting. The CLI prints its message without a stack and exits with 1. */
export class UserError extends Error {
  override name = 'UserError'
}
