// Parameters by name: a model asks for them as it is traced, and each becomes one program input, or a quantised matrix
// made of a few.

import type { BlockFormat, WeightFormat } from '../core/types.ts'
import { input } from '../graph/ops/input.ts'
import { dequantize } from '../graph/ops/quantized.ts'
import { scope, type Tensor } from '../graph/tensor.ts'
import { blockLayout, quantizedNames } from '../quant/layout.ts'

export interface Weights {
  (name: string): Tensor
  has(name: string): boolean
  /** The weights below a prefix; `trace` also names the scope for errors. */
  in(prefix: string): Weights
  trace<T>(prefix: string, build: (weights: Weights) => T): T
  /** Every tensor asked for so far, by full name. */
  readonly used: ReadonlyMap<string, Tensor>
  /** Where low-rank weights act, and how strongly. Absent: nowhere. */
  readonly gate: Gate | undefined
  /** The same weights with a gate. */
  gated(gate: Gate): Weights
}

/**
 * What the low-rank part of a projection is multiplied with, for an input x [..., width] of that projection: a factor for
 * all positions, or one for each, [..., 1].
 */
export type Gate = (x: Tensor) => Tensor | number

/**
 * Weights of the given shapes, those named in `formats` quantised or in float16. Asking for an unknown name is an error of the model's
 * code. `exact`: products with quantised ones are those with the float32 values that they stand for.
 */
export function createWeights(
  shapes: ReadonlyMap<string, readonly number[]>,
  formats: ReadonlyMap<string, WeightFormat> = new Map(),
  { exact = false }: { exact?: boolean } = {},
): Weights {
  const used = new Map<string, Tensor>()
  const below = (prefix: string, gate?: Gate): Weights => {
    const full = (name: string) => (prefix ? `${prefix}.${name}` : name)
    const weights = (name: string): Tensor => {
      const key = full(name)
      const known = used.get(key)
      if (known) return known
      const shape = shapes.get(key)
      if (!shape) throw new Error(`the model has no parameter ${key}`)
      const format = formats.get(key)
      const tensor =
        typeof format === 'object' ? quantizedMatrix(key, shape, format, exact) : input(key, format ?? 'float32', shape)
      used.set(key, tensor)
      return tensor
    }
    return Object.assign(weights, {
      has: (name: string) => shapes.has(full(name)),
      in: (name: string) => below(full(name), gate),
      trace: <T>(name: string, build: (weights: Weights) => T): T => scope(name, () => build(below(full(name), gate))),
      used,
      gate,
      gated: (other: Gate) => below(prefix, other),
    })
  }
  return below('')
}

/** The matrix `name` [out, in], made of inputs for each of the tensors that store it. */
export function quantizedMatrix(name: string, shape: readonly number[], format: BlockFormat, exact = false): Tensor {
  const names = quantizedNames(name)
  const layout = blockLayout(shape, format)
  const stored = {
    packed: input(names.packed, layout.dtype, layout.packed),
    scales: input(names.scales, 'float32', layout.scales),
    zeroPoints: format.asymmetric ? input(names.zeroPoints, 'uint8', layout.zeroPoints) : undefined,
    offsets: format.offsets ? input(names.offsets, 'float32', layout.scales) : undefined,
  }
  return dequantize(stored, { format, width: shape[1], exact })
}
