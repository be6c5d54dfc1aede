// Types shared by several layers. Knows nothing about graphs, files or runtimes.

/** Element types that unmask computes with or stores. */
export type DType = 'float32' | 'float16' | 'int64' | 'int32' | 'int8' | 'uint8' | 'uint4' | 'bool'

export type TypedArray = Float32Array | Uint16Array | Int32Array | BigInt64Array | Int8Array | Uint8Array

/** Where ONNX Runtime runs a program: what the device has no kernel for runs on the processor. */
export const devices = ['cpu', 'webgpu', 'cuda'] as const
export type Device = (typeof devices)[number]

/**
 * A dense row-major tensor on the host. float16 is held as its bits in a Uint16Array, bool as 0/1 bytes, uint4 as bytes of two,
 * the first in the low bits.
 */
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

/** How a quantised matrix is stored: each row in blocks, a block with one scale and, if asymmetric, one zero point. */
export interface BlockFormat {
  bits: 4 | 8
  /** Consecutive values of a row that share a scale: a power of two, at least 16; with `activations` the whole row. */
  blockSize: number
  /** Whether blocks have zero points of their own. Otherwise it is 2^(bits - 1) everywhere. */
  asymmetric: boolean
  /** Whether blocks have a float32 offset in place of a zero point, as some of ggml's have a minimum. Default false. */
  offsets?: boolean
  /**
   * Bits of the inputs of a product, for 8 bits with one scale per row and neither zero points nor offsets: each input row is
   * rounded with a scale of its own, and products are sums of whole numbers. Default: MatMulNBits rounds inputs as it does.
   */
  activations?: 8
}

/** How a program has a weight that is not float32. */
export type WeightFormat = BlockFormat | 'float16'

/**
 * A quantised matrix [out, in], in the layout of ONNX Runtime's MatMulNBits: the value is (q - zero point) * scale, or with
 * offsets q * scale + offset.
 * Rows do not share bytes, so rows can be taken or joined.
 */
export interface QuantizedParameter {
  shape: readonly number[]
  format: BlockFormat
  /**
   * q as unsigned numbers, [out, blocks, blockSize * bits / 8]; of two in a byte the first is in the low bits. Files and
   * programs have signed numbers, q - 128, where the format has `activations`.
   */
  packed: Uint8Array
  /** [out, blocks]. */
  scales: Float32Array
  /** [out, ceil(blocks * bits / 8)], packed as the values are. */
  zeroPoints: Uint8Array | undefined
  /** [out, blocks], where the format has them. */
  offsets?: Float32Array
}

/** Where a tensor's bytes lie in a file. */
export interface FileRange {
  path: string
  offset: number
  length: number
}

/**
 * A parameter that stays in its file, which the executor maps into memory: no copy of it is made here, and the file must
 * not change until the model is loaded. Its values are float32, or the parts of a `QuantizedParameter`.
 */
export interface MappedParameter {
  shape: readonly number[]
  format: BlockFormat | undefined
  file:
    | { data: FileRange }
    | { packed: FileRange; scales: FileRange; zeroPoints: FileRange | undefined; offsets?: FileRange | undefined }
}

/**
 * A parameter that stays in its file until an executor takes it, so that no copy waits in memory: `read` gives it anew each
 * time. The file must not change as long as models are loaded from it.
 */
export interface StoredParameter<P extends Parameter | QuantizedParameter = Parameter | QuantizedParameter> {
  shape: readonly number[]
  /** That of what `read` gives; undefined: float32. */
  format: BlockFormat | undefined
  read(): Promise<P>
}

/** A parameter that training begins with. */
export type InitialParameter = Parameter | StoredParameter<Parameter>

export const valuesOf = async (parameter: InitialParameter): Promise<Parameter> =>
  'read' in parameter ? parameter.read() : parameter

/**
 * A parameter of a model that is only run; training needs float32. One that can be mapped may also be read, for a program that
 * has it in another form.
 */
export type InferenceParameter =
  | Parameter
  | QuantizedParameter
  | (MappedParameter & Partial<StoredParameter>)
  | StoredParameter

export const isQuantized = (parameter: InferenceParameter): parameter is QuantizedParameter => 'packed' in parameter

/** The contents of a Hugging Face `config.json`, as read: keys keep their snake_case names. */
export type ModelConfig = Record<string, unknown> & { model_type: string }

/** An error a user can act on: wrong flag, wrong file, wrong setting. The CLI prints its message without a stack and exits with 1. */
export class UserError extends Error {
  override name = 'UserError'
}

/** What a model's config says and cannot be. */
export class ConfigError extends UserError {
  override name = 'ConfigError'
  /** What is wrong, without the file that says it. */
  readonly problem: string

  constructor(problem: string) {
    super(`config.json: ${problem}`)
    this.problem = problem
  }
}

/** What somebody calls a setting that the library calls `name`: `maskRatio` is `--mask-ratio` on the command line. */
export type NameOf = (name: string) => string

/**
 * Settings that make no sense, alone or together. Named as the library names them, unless whoever gave them knows them by
 * other names (`inNames`). The CLI names their flags and exits with 2.
 */
export class SettingError extends UserError {
  override name = 'SettingError'
  /** Those that are wrong, the first above all. */
  readonly settings: readonly [string, ...string[]]
  private readonly problem: (nameOf: NameOf) => string

  /** `problem`: a function where it mentions further settings. */
  constructor(settings: string | readonly [string, ...string[]], problem: string | ((nameOf: NameOf) => string)) {
    const names = typeof settings === 'string' ? ([settings] as const) : settings
    const words = typeof problem === 'string' ? () => problem : problem
    super(`${names.join(', ')}: ${words((name) => name)}`)
    this.settings = names
    this.problem = words
  }

  /** The message in other names. */
  inNames(nameOf: NameOf): string {
    return `${this.settings.map(nameOf).join(', ')}: ${this.problemIn(nameOf)}`
  }

  /** The same without saying first which settings it is about. */
  problemIn(nameOf: NameOf): string {
    return this.problem(nameOf)
  }
}
