// Low-rank adapters (LoRA; Hu et al., 2021; DoRA; Liu et al., 2024) of a model's projections: which there are, their shapes,
// first values and what they make of a matrix.
// Where they act is the caller's gate; files are the checkpoint layer's.

import { random } from '../core/random.ts'
import { type InferenceParameter, type Parameter, SettingError } from '../core/types.ts'
import { floatValues } from '../quant/layout.ts'
import type { Model } from './types.ts'

export interface LoraOptions {
  /** Rank r of the products; at most the smaller side of each projection. */
  rank: number
  /** Last part of the names of the projections that get one, such as `q_proj`. */
  targetModules: readonly string[]
  /** Rows of the projections have a trained length too (DoRA; Liu et al., 2024). Default false. */
  dora?: boolean
  /** There is a trained embedding of the mask token. Default true. */
  maskEmbedding?: boolean
}

/** Name of the trained embedding of the mask token, [1, H], as PEFT calls the rows of its `trainable_token_indices`. */
export const maskEmbeddingName = (model: Pick<Model, 'embeddingName'>): string =>
  model.embeddingName.replace(/weight$/, 'token_adapter.trainable_tokens_delta')

/**
 * Shapes of an adapter's parameters: for each projection W [out, in] `lora_A.weight` [r, in] and `lora_B.weight` [out, r], with
 * DoRA `lora_magnitude_vector` [out], and the embedding of the mask token, [1, H]. Throws SettingError where the model has no
 * projection of a name, or the rank is above the width of one.
 */
export function loraShapes(
  model: Model,
  { rank, targetModules, dora = false, maskEmbedding = true }: LoraOptions,
): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>()
  const found = new Set<string>()
  for (const [name, shape] of layerMatrices(model)) {
    const [, module, last] = /^((?:.*\.)?([^.]+))\.weight$/.exec(name) ?? []
    if (!module || !last || !targetModules.includes(last)) continue
    found.add(last)
    const [out, width] = shape as [number, number]
    if (rank > Math.min(out, width))
      throw new SettingError(
        'rank',
        `${rank} is above the width of ${module}, which is [${out}, ${width}]; expected at most ${Math.min(out, width)}`,
      )
    shapes.set(`${module}.lora_A.weight`, [rank, width])
    shapes.set(`${module}.lora_B.weight`, [out, rank])
    if (dora) shapes.set(magnitudeOf(module), [out])
  }
  const missing = targetModules.filter((name) => !found.has(name))
  if (missing.length > 0)
    throw new SettingError(
      'targetModules',
      `the model (${model.config.model_type}) has no projection called ${missing.join(', ')}; it has ${[...projectionNames(model)].join(', ')}`,
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
 * First values of low-rank weights: A uniform in +-1 / sqrt(in) (PEFT's Kaiming initialisation), B 0, so that they change
 * nothing yet; the mask token's embedding, where it is trained, as given. Lengths of rows are those of `initialMagnitudes`.
 */
export function initialLora(
  shapes: ReadonlyMap<string, readonly number[]>,
  maskEmbedding: Float32Array | undefined,
  seed: number,
): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>()
  let index = 0
  for (const [name, shape] of shapes) {
    if (shape.length === 1) continue
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

/** Lengths of the rows of the base's projections, with which DoRA begins; empty where `shapes` have none. */
export async function initialMagnitudes(
  shapes: ReadonlyMap<string, readonly number[]>,
  base: ReadonlyMap<string, InferenceParameter>,
): Promise<Map<string, Parameter>> {
  const magnitudes = new Map<string, Parameter>()
  for (const [name, shape] of shapes) {
    const module = moduleOfMagnitude(name)
    if (module === undefined) continue
    magnitudes.set(name, { shape, data: rowLengths(await floatValues(base.get(`${module}.weight`)!), shape[0]!) })
  }
  return magnitudes
}

/** Lengths of the rows of a matrix. */
function rowLengths(values: Float32Array, rows: number): Float32Array {
  const width = values.length / rows
  return Float32Array.from({ length: rows }, (_, row) => {
    let sum = 0
    for (let i = row * width; i < (row + 1) * width; i++) sum += values[i]! ** 2
    return Math.sqrt(sum)
  })
}

const MAGNITUDE = '.lora_magnitude_vector'

/** Name of the lengths of the rows of a module's matrix. */
const magnitudeOf = (module: string): string => module + MAGNITUDE

const moduleOfMagnitude = (name: string): string | undefined =>
  name.endsWith(MAGNITUDE) ? name.slice(0, -MAGNITUDE.length) : undefined

/** Whether a parameter holds lengths of rows. */
export const isMagnitude = (name: string): boolean => name.endsWith(MAGNITUDE)

/** The parameters that belong to `lora_A`, by the name of that: `....q_proj.lora_A.weight`. */
export const partnersOf = (a: string): { weight: string; b: string; magnitude: string } => {
  const module = a.replace(/\.lora_A\.weight$/, '')
  return { weight: `${module}.weight`, b: `${module}.lora_B.weight`, magnitude: magnitudeOf(module) }
}

/** What changes a projection W [out, in]: A [r, in], B [out, r], and with DoRA the lengths of the rows [out]. */
export interface LowRank {
  a: Parameter
  b: Parameter
  magnitude?: Parameter | undefined
}

/** Makes W + scale B A of W in place; with lengths of rows, each row then gets its own. */
export function fuse(weights: Float32Array, { a, b, magnitude }: LowRank, scale: number): void {
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
    if (!magnitude) continue
    let squares = 0
    for (const value of out) squares += value ** 2
    const stretch = magnitude.data[row]! / Math.sqrt(squares)
    for (let i = 0; i < width; i++) out[i]! *= stretch
  }
}
