// Tensors: values of JavaScript's that ONNX Runtime reads or writes in place, and views of values of its own.
import koffi from 'koffi'
import { arrays, dtypes, ONNX_TYPE } from '../../core/element-types.ts'
import type { DType, TypedArray } from '../../core/types.ts'
import { allocator, api } from './api.ts'
import { addressOf, made, words } from './memory.ts'

/** Values that ONNX Runtime reads, or writes. */
export interface Value {
  dtype: DType
  data: TypedArray
  shape: readonly number[]
}

/** A view of ONNX Runtime's memory. */
export interface Output {
  dtype: DType
  shape: number[]
  data: TypedArray
}

/** Elements of the array that holds a tensor. */
function lengthOf(dtype: DType, shape: readonly number[]): number {
  const size = shape.reduce((a, b) => a * b, 1)
  return dtype === 'uint4' ? Math.ceil(size / 2) : size
}

const ARENA_ALLOCATOR = 1
const DEFAULT_MEMORY = 0
const memoryInfo = made((place) => api.CreateCpuMemoryInfo(ARENA_ALLOCATOR, DEFAULT_MEMORY, place))

/** A tensor over values, without a copy: they must stay reachable. To be released with `api.ReleaseValue`. */
export function tensorOver({ dtype, data, shape }: Value): bigint {
  const size = lengthOf(dtype, shape)
  if (size > data.length) throw new Error(`a tensor of shape [${shape}] needs ${size} values, there are ${data.length}`)
  const bytes = size * data.BYTES_PER_ELEMENT
  return made((place) =>
    api.CreateTensorWithDataAsOrtValue(
      memoryInfo,
      addressOf(data),
      bytes,
      dimensionsOf(shape),
      shape.length,
      ONNX_TYPE[dtype],
      place,
    ),
  )
}

/** A tensor in ONNX Runtime's own memory. */
export const ownTensor = (dtype: DType, shape: readonly number[]): bigint =>
  made((place) => api.CreateTensorAsOrtValue(allocator, dimensionsOf(shape), shape.length, ONNX_TYPE[dtype], place))

/** The values of a tensor, as long as it lives. */
export function viewOf(value: bigint): Output {
  const info = made((place) => api.GetTensorTypeAndShape(value, place))
  const number = Number(made((place) => api.GetTensorElementType(info, place)) & 0xffffffffn)
  const rank = Number(made((place) => api.GetDimensionsCount(info, place)))
  const dimensions = words(rank)
  api.GetDimensions(info, dimensions, rank)
  api.ReleaseTensorTypeAndShapeInfo(info)
  const dtype = dtypes.get(number)
  if (!dtype) throw new Error(`an output has the type ${number}, which is not supported`)
  const shape = Array.from(dimensions.subarray(0, rank), Number)
  const size = lengthOf(dtype, shape)
  const array = arrays[dtype]
  if (size === 0) return { dtype, shape, data: new array(0) }
  const data = made((place) => api.GetTensorMutableData(value, place))
  return { dtype, shape, data: new array(koffi.view(data, size * array.BYTES_PER_ELEMENT)) }
}

function dimensionsOf(shape: readonly number[]): BigUint64Array {
  const dimensions = words(shape.length)
  for (const [i, dimension] of shape.entries()) dimensions[i] = BigInt(dimension)
  return dimensions
}
