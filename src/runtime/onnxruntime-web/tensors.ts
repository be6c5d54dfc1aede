// Tensors over the module's memory.

import { arrays, dtypes, ONNX_TYPE } from '../../core/element-types.ts'
import type { DType, TensorData, TypedArray } from '../../core/types.ts'
import { allocate, check, failure, type OrtModule } from './module.ts'

/** Values in the processor's memory, as ONNX Runtime's WebAssembly interface numbers places. */
const IN_MEMORY = 1

export const bytesPerElement = (dtype: DType): number => arrays[dtype].BYTES_PER_ELEMENT

export const bytesOf = (data: TypedArray): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/** A tensor over bytes at an address, which must stay there. To be released. */
export function tensorAt(module: OrtModule, dtype: DType, address: number, shape: readonly number[]): number {
  const stack = module.stackSave()
  try {
    const dims = module.stackAlloc(4 * shape.length)
    for (const [i, size] of shape.entries()) module.setValue(dims + 4 * i, size, 'i32')
    const bytes = sizeOf(shape) * bytesPerElement(dtype)
    const tensor = module._OrtCreateTensor(ONNX_TYPE[dtype], address, bytes, dims, shape.length, IN_MEMORY)
    if (tensor === 0) throw failure(module, `a tensor of ${dtype} [${shape}]`)
    return tensor
  } finally {
    module.stackRestore(stack)
  }
}

/** Values in memory that is freed with the tensor. */
export function tensorOf(module: OrtModule, { dtype, data, shape }: TensorData): { tensor: number; address: number } {
  const address = allocate(module, data.byteLength)
  module.HEAPU8.set(bytesOf(data), address)
  return { tensor: tensorAt(module, dtype, address, shape), address }
}

/** A copy of a tensor's values. */
export function valuesOf(module: OrtModule, tensor: number): TensorData {
  const stack = module.stackSave()
  let dims = 0
  try {
    const place = module.stackAlloc(16)
    check(module, module._OrtGetTensorData(tensor, place, place + 4, place + 8, place + 12), 'reading an output')
    const dtype = dtypes.get(module.getValue(place, 'i32'))
    const address = module.getValue(place + 4, '*')
    dims = module.getValue(place + 8, '*')
    const rank = module.getValue(place + 12, 'i32')
    const shape = Array.from({ length: rank }, (_, i) => module.getValue(dims + 4 * i, 'i32'))
    if (!dtype) throw new Error(`an output has the type ${module.getValue(place, 'i32')}, which is not supported`)
    const array = arrays[dtype]
    const bytes = module.HEAPU8.slice(address, address + sizeOf(shape) * array.BYTES_PER_ELEMENT)
    return { dtype, shape, data: new array(bytes.buffer as ArrayBuffer) }
  } finally {
    module.stackRestore(stack)
    if (dims !== 0) module._OrtFree(dims)
  }
}

/** A copy of values in memory. */
export function copyOf(module: OrtModule, dtype: DType, address: number, length: number): TypedArray {
  const array = arrays[dtype]
  return new array(module.HEAPU8.slice(address, address + length * array.BYTES_PER_ELEMENT).buffer as ArrayBuffer)
}
