// Element types of tensors: ONNX's numbers for them, and the arrays that hold their values in JavaScript.
import type { DType } from './types.ts'

/** TensorProto.DataType. */
export const ONNX_TYPE: Record<DType, number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  uint4: 21,
}

/** The element type of each of ONNX's numbers. */
export const dtypes: ReadonlyMap<number, DType> = new Map(
  Object.entries(ONNX_TYPE).map(([dtype, number]) => [number, dtype as DType]),
)

/** Two numbers of uint4 are one byte. */
export const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  uint4: Uint8Array,
  bool: Uint8Array,
}
