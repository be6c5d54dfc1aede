// What an architecture is to the layers above. An architecture knows nothing about masks, noise, caches or losses.
import type { Tensor } from '../graph/tensor.ts'
import type { Weights } from '../nn/weights.ts'
import type { ModelConfig } from '../types.ts'

/** The sizes that decoding and memory estimates need, whatever the architecture. */
export interface Dimensions {
  vocabSize: number
  hiddenSize: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  maxPositions: number
}

export interface ModelInput {
  /** Token ids [batch, length], int64. */
  ids: Tensor
  /** Positions [batch, length], int64; below `positionCount` where that is given. */
  positions: Tensor
  /** Size of a rotary table, a constant of the program. Default: none, angles are computed in the program. */
  positionCount?: number
  /**
   * The caller's attention: q [batch, length, heads * D], k and v with key-value heads, rotated.
   * Returns the mixed values in q's shape.
   */
  attention(q: Tensor, k: Tensor, v: Tensor, layer: number): Tensor
  /** Changes the embedding output [batch, length, H], for example by noise at masked positions. */
  embeddings?(h: Tensor): Tensor
  /** Chooses the positions that go on after the last attention: [batch, length, width] -> [M, width]. Default: all. */
  select?(x: Tensor): Tensor
}

export interface ModelOutput {
  /** After the final norm, [batch, length, H] or [M, H]. */
  hidden: Tensor
  /** Output head [vocabulary, H]; the embedding itself where tied. */
  head: Tensor
}

export interface Model {
  config: ModelConfig
  dimensions: Dimensions
  /** Shape of every parameter, by checkpoint name. */
  parameters: ReadonlyMap<string, readonly number[]>
  /** Parameters that no gradient reaches: they are saved with the model and never trained. */
  buffers: ReadonlySet<string>
  /** Name of the embedding, whose rows are tokens. */
  embeddingName: string
  trace(weights: Weights, input: ModelInput): ModelOutput
}

export interface Architecture {
  /** Value of `model_type` in config.json. */
  modelType: string
  /** Builds the model. Throws UserError that names the key where the config does not make sense. */
  create(config: ModelConfig): Model
}
