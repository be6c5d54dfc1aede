// Low-rank adapters (LoRA; Hu et al., 2021) of a model's projections: which there are, their shapes, first values and products.
// Where they act is the caller's gate; files are the checkpoint layer's.

import { random } from '../core/random.ts'
import { type Parameter, UserError } from '../core/types.ts'
import type { Model } from './types.ts'

export interface LoraOptions {
  /** Rank r of the products. */
  rank: number
  /** Last part of the names of the projections that get one, such as `q_proj`. */
  targetModules: readonly string[]
  /** There is a trained embedding of the mask token. Default true. */
  maskEmbedding?: boolean
}

/** Name of the trained embedding of the mask token, [1, H], as PEFT calls the rows of its `trainable_token_indices`. */
export const maskEmbeddingName = (model: Pick<Model, 'embeddingName'>): string =>
  model.embeddingName.replace(/weight$/, 'token_adapter.trainable_tokens_delta')

/**
 * Shapes of an adapter's parameters: for each projection W [out, in] `lora_A.weight` [r, in] and `lora_B.weight` [out, r],
 * and the embedding of the mask token, [1, H]. Throws UserError where the model has no projection of a name.
 */
export function loraShapes(
  model: Model,
  { rank, targetModules, maskEmbedding = true }: LoraOptions,
): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>()
  const found = new Set<string>()
  for (const [name, shape] of layerMatrices(model)) {
    const [, module, last] = /^((?:.*\.)?([^.]+))\.weight$/.exec(name) ?? []
    if (!module || !last || !targetModules.includes(last)) continue
    found.add(last)
    shapes.set(`${module}.lora_A.weight`, [rank, shape[1]])
    shapes.set(`${module}.lora_B.weight`, [shape[0], rank])
  }
  const missing = targetModules.filter((name) => !found.has(name))
  if (missing.length > 0)
    throw new UserError(
      `target_modules: the model (${model.config.model_type}) has no projection called ${missing.join(', ')}; it has ${[...projectionNames(model)].join(', ')}`,
    )
  if (maskEmbedding) shapes.set(maskEmbeddingName(model), [1, model.dimensions.hiddenSize])
  return shapes
}

/** The matrices of the layers that are whole projections: not those of experts, nor the router that chooses them. */
function* layerMatrices(model: Model): Generator<[name: string, shape: readonly number[]]> {
  for (const [name, shape] of model.parameters)
    if (shape.length === 2 && /\.\d+\./.test(name) && !/\.experts\.|\.mlp\.gate\./.test(name)) yield [name, shape]
}

const projectionNames = (model: Model): Set<string> =>
  new Set([...layerMatrices(model)].map(([name]) => name.split('.').at(-2)!))

/** All projections of a layer, whatever the family calls them. */
export function defaultTargetModules(model: Model): string[] {
  return [...projectionNames(model)]
}

const LORA_STREAM = 0x6c6f7261

/**
 * First values: A uniform in +-1 / sqrt(in) (PEFT's Kaiming initialisation), B 0, so that the adapter changes nothing yet;
 * the mask token's embedding, where it is trained, as given.
 */
export function initialLora(
  shapes: ReadonlyMap<string, readonly number[]>,
  maskEmbedding: Float32Array | undefined,
  seed: number,
): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>()
  let index = 0
  for (const [name, shape] of shapes) {
    const data = new Float32Array(shape[0]! * shape[1]!)
    if (name.endsWith('.lora_A.weight')) {
      random(seed, LORA_STREAM, index++).fillUniform(data)
      const bound = 1 / Math.sqrt(shape[1]!)
      for (let i = 0; i < data.length; i++) data[i] = (2 * data[i]! - 1) * bound
    } else if (!name.endsWith('.lora_B.weight') && maskEmbedding) data.set(maskEmbedding)
    parameters.set(name, { shape, data })
  }
  return parameters
}

/** Name of the projection whose low-rank product `lora` holds the first half of: `….q_proj.lora_A.weight` -> `….q_proj.weight`. */
export const projectionOf = (loraName: string): string | undefined =>
  /^(.+\.)lora_A\.weight$/.exec(loraName)?.[1]?.concat('weight')

/** Adds scale B A to a projection's weights in place: W [out, in], A [r, in], B [out, r]. */
export function addLowRank(weights: Float32Array, a: Parameter, b: Parameter, scale: number): void {
  const [rank, width] = a.shape as [number, number]
  const rows = weights.length / width
  for (let row = 0; row < rows; row++) {
    const out = weights.subarray(row * width, (row + 1) * width)
    for (let r = 0; r < rank; r++) {
      const factor = scale * b.data[row * rank + r]!
      if (factor === 0) continue
      const from = r * width
      for (let i = 0; i < width; i++) out[i]! += factor * a.data[from + i]!
    }
  }
}
