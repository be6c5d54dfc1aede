// The shapes that training is measured on: a model of random weights, a batch of random tokens.

import { random } from '../src/core/random.ts'
import type { ModelConfig, Parameter } from '../src/core/types.ts'
import { createPacker } from '../src/data/pack.ts'
import type { Batch } from '../src/data/types.ts'

export interface TrainShape {
  config: ModelConfig
  rows: number
  length: number
  blockSize: number
}

const llama = (sizes: Record<string, number>): ModelConfig => ({
  model_type: 'llama',
  tie_word_embeddings: true,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  ...sizes,
})

export const trainShapes: Readonly<Record<string, TrainShape>> = {
  '7m': {
    config: llama({
      vocab_size: 4096,
      hidden_size: 256,
      intermediate_size: 768,
      num_hidden_layers: 8,
      num_attention_heads: 4,
      num_key_value_heads: 2,
    }),
    rows: 8,
    length: 256,
    blockSize: 32,
  },
  'smollm2-135m': {
    config: llama({
      vocab_size: 49153,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
    }),
    rows: 2,
    length: 256,
    blockSize: 32,
  },
  'moe-16': {
    config: {
      model_type: 'llada2_moe',
      vocab_size: 4096,
      hidden_size: 256,
      intermediate_size: 768,
      num_hidden_layers: 4,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      num_experts: 16,
      num_experts_per_tok: 4,
      moe_intermediate_size: 192,
      num_shared_experts: 1,
      first_k_dense_replace: 1,
      n_group: 4,
      topk_group: 2,
      moe_router_enable_expert_bias: true,
      rms_norm_eps: 1e-6,
      partial_rotary_factor: 0.5,
    },
    rows: 8,
    length: 256,
    blockSize: 32,
  },
}

/** Norms of 1, everything else normal with deviation 0.02, as Llama is initialised. */
export function randomWeights(parameters: ReadonlyMap<string, readonly number[]>): Map<string, Parameter> {
  const weights = new Map<string, Parameter>()
  let stream = 0
  for (const [name, shape] of parameters) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
    if (shape.length === 1) data.fill(1)
    else {
      random(0, stream++).fillNormal(data)
      for (let i = 0; i < data.length; i++) data[i] *= 0.02
    }
    weights.set(name, { shape, data })
  }
  return weights
}

/** Rows of one document each; the last token of the vocabulary is left for the mask. */
export function randomBatch({ config, rows, length }: TrainShape): Batch {
  const draw = random(1)
  const vocabulary = Number(config.vocab_size) - 1
  const each = (value: (i: number) => number) => Int32Array.from({ length: rows * length }, (_, i) => value(i))
  return {
    rows,
    length,
    ids: each(() => draw.integer(vocabulary)),
    documents: each(() => 0),
    positions: each((i) => i % length),
    maskable: new Uint8Array(rows * length).fill(1),
    padding: new Uint8Array(rows * length),
    documentIds: [],
    tokens: rows * length,
    bytes: rows * length,
  }
}

/** Tokens of a prompt and, the EOS among them, of its completion. */
const PROMPT = 60
const COMPLETION = 60

/** Rows packed with documents of a prompt and a completion, which alone is trained on. */
export function promptBatch({ config, rows, length, blockSize }: TrainShape): Batch {
  const draw = random(2)
  const eosId = Number(config.vocab_size) - 2
  const packer = createPacker({ rows, length, blockSize, eosId, byteLength: (ids) => ids.length })
  const size = PROMPT + COMPLETION
  for (let document = 0; ; document++) {
    const ids = Int32Array.from({ length: size }, (_, i) => (i === size - 1 ? eosId : draw.integer(eosId)))
    const maskable = Uint8Array.from(ids, (_, i) => (i < PROMPT ? 0 : 1))
    if (!packer.place({ id: String(document), ids, maskable })) return packer.finish()
  }
}
