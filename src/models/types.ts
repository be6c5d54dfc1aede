// What an architecture is to the layers above. An architecture knows nothing about masks, noise, caches or losses.

import type { ModelConfig } from '../core/types.ts'
import type { Tensor } from '../graph/tensor.ts'
import type { Weights } from '../nn/weights.ts'

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

/** A layer whose feed-forward part is a mixture of experts. */
export interface MixtureLayer {
  experts: number
  /** Experts that each position goes to. */
  topK: number
  /** Name of the router's matrix [experts, H]. */
  router: string
  /** Name of the bias [experts] that takes part in the choice alone; undefined where there is none. */
  bias: string | undefined
  /** Parameters of one expert. */
  expertSize: number
}

/** What a router did: both [..., experts], over the positions that reach its layer. */
export interface Routing {
  /** Each position's scores, from 0 to 1. */
  scores: Tensor
  /** 1 for the experts that a position goes to, 0 for the others. */
  selected: Tensor
}

export interface ModelOutput {
  /** After the final norm, [batch, length, H] or [M, H]. */
  hidden: Tensor
  /** Output head [vocabulary, H]; the embedding itself where tied. */
  head: Tensor
  /** Of the layers in `mixtures`, in their order. */
  routing: readonly Routing[]
}

export interface Model {
  config: ModelConfig
  dimensions: Dimensions
  /** Shape of every parameter, by checkpoint name. */
  parameters: ReadonlyMap<string, readonly number[]>
  /** Parameters that no gradient reaches: they are saved with the model and never trained. */
  buffers: ReadonlySet<string>
  /** The layers that are mixtures of experts, in order; none in a dense model. */
  mixtures: readonly MixtureLayer[]
  /** Name of the embedding, whose rows are tokens. */
  embeddingName: string
  trace(weights: Weights, input: ModelInput): ModelOutput
}

export interface Architecture {
  /** Value of `model_type` in config.json. */
  modelType: string
  /** Builds the model. Throws UserError that names the key where the config does not make sense. */
  create(config: ModelConfig): Model
  /**
   * The config.json of what a model of this architecture is after training, where it is another, and what of the
   * checkpoint is not part of that, in words.
   */
  trained?(config: ModelConfig, objective: 'diffusion' | 'ar' | 'hybrid'): { config: ModelConfig; dropped?: string }
}
