// In which formats a model's weights fit into a memory, and how long a text may then be. Knows shapes, no files.
import type { BlockFormat } from '../core/types.ts'
import type { Model } from '../models/types.ts'
import { blockLayout, isMatrixToQuantize, rowFormat } from '../quant/layout.ts'

export interface Fit {
  /** float32, or the flags of `quantize`. */
  format: string
  weightBytes: number
  /** Longest text whose cache has room beside the weights, at most what the model takes; 0 where the weights have none. */
  positions: number
}

/** What Node.js and ONNX Runtime take beside weights and cache; `npm run bench -- memory` measures it with the embedded model. */
const RUNTIME_BYTES = 300e6

const GROUP = 32

const formats: Record<string, (shape: readonly number[]) => BlockFormat | undefined> = {
  float32: () => undefined,
  '--bits 8': () => ({ bits: 8, blockSize: GROUP, asymmetric: false }),
  '--bits 8 --activations 8': rowFormat,
  '--bits 4': () => ({ bits: 4, blockSize: GROUP, asymmetric: false }),
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1)

/** Bytes of the weights where matrices are stored in a format, or in float32 where there is none for them. */
function weightBytes(
  { parameters }: Pick<Model, 'parameters'>,
  formatOf: (shape: readonly number[]) => BlockFormat | undefined,
): number {
  let bytes = 0
  for (const [name, shape] of parameters) {
    const format = isMatrixToQuantize(name, shape) ? formatOf(shape) : undefined
    if (!format || shape[1] % format.blockSize !== 0) bytes += 4 * sizeOf(shape)
    else {
      const { packed, scales } = blockLayout(shape, format)
      bytes += sizeOf(packed) + 4 * sizeOf(scales)
    }
  }
  return bytes
}

/** Each format in `room` bytes of memory, the largest first. */
export function fits(model: Pick<Model, 'parameters' | 'dimensions'>, room: number): Fit[] {
  const { layers, kvHeads, headDim, maxPositions } = model.dimensions
  const perPosition = 2 * 4 * layers * kvHeads * headDim
  return Object.entries(formats).map(([format, formatOf]) => {
    const bytes = weightBytes(model, formatOf)
    const left = room - RUNTIME_BYTES - bytes
    return {
      format,
      weightBytes: bytes,
      positions: Math.max(0, Math.min(maxPositions, Math.floor(left / perPosition))),
    }
  })
}
