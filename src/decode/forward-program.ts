// The inference program of a model: new positions against a KV cache, for autoregressive and block decoding alike.
// Knows the model and the attention of decoding; knows nothing about when to forward or what to commit.

import type { InferenceParameter, Parameter, WeightFormat } from '../core/types.ts'
import { cachedAttention, cachePlaces, storeInCache } from '../graph/ops/attention/cached.ts'
import { cachedAttentionBias } from '../graph/ops/attention/masks.ts'
import { add, div, mul, sqrt, sub } from '../graph/ops/elementwise.ts'
import { constant, input } from '../graph/ops/input.ts'
import { gatherRows, reshape } from '../graph/ops/layout.ts'
import { linear } from '../graph/ops/linear.ts'
import { predict } from '../graph/ops/predict.ts'
import { sum } from '../graph/ops/reduce.ts'
import type { Program } from '../graph/program.ts'
import { product } from '../graph/shape.ts'
import { lastDim, type Tensor } from '../graph/tensor.ts'
import { maskEmbeddingName } from '../models/lora.ts'
import type { Model } from '../models/types.ts'
import { formatsOf, loadInference } from '../nn/inference.ts'
import { createWeights } from '../nn/weights.ts'
import type { Executor, Resident, Session } from '../runtime/executor.ts'

type Shapes = ReadonlyMap<string, readonly number[]>

/** What a program has beside the model itself. */
export interface DecodeExtras {
  /** An adapter's parameters, the scale of its low-rank products included in `lora_B`. */
  adapter?: ReadonlyMap<string, Parameter>
  /** The mask token, where positions may have mixtures of their token and it (DMax's soft states). Default: none may. */
  softMask?: number
}

/**
 * Inputs, with B rows of T new positions and a cache of C positions per row:
 * - `input_ids`, `position_ids` [B, T] int64;
 * - `block_ids`, `block_ends` [B, T] int64: new position i sees new position j iff `block_ids[j] <= block_ids[i] < block_ends[j]`.
 *   floor(position / block size) and endless ends make blocks that see themselves and those before (block size 1: causal
 *   attention); entry and exit times of a walk through a tree make branches; -1 and 0 are padding;
 * - `past_key.{layer}`, `past_value.{layer}` [B, C, key-value heads * D]: the cache, keys already rotated;
 * - `cache_length` [B] int64: positions of the cache that are filled, which all new positions see; at most C - T;
 * - `row_index` [R] int64: which of the B * T new positions are predicted;
 * - `logit_scale` [R], `token_bias` [vocabulary]: predictions are made of `logits * logit_scale + token_bias`.
 *
 * Outputs: `token` [R] int64 and its probability `confidence` [R]; `logits` [R, vocabulary] before scale and bias;
 * `present_key.{layer}`, `present_value.{layer}` [B, C, key-value heads * D]: the cache with the new positions written behind
 * the filled ones; where they are given the memory of the inputs, nothing else is written.
 *
 * The weights named in `formats` are quantised or in float16.
 *
 * With the parameters of an adapter there is one more input, `gate` [B, T, 1]: 1 where a mask stands, whose embedding is the
 * adapter's and at which its low-rank weights act, else 0; at those positions the values are exactly those of the model alone.
 *
 * With soft states there is one more, `mask_share` [B, T, 1]: how much of a position's embedding is the mask's; see
 * `softEmbedding`.
 */
export function decodeProgram(
  model: Model,
  formats?: ReadonlyMap<string, WeightFormat>,
  { adapter = new Map(), softMask }: { adapter?: Shapes; softMask?: number } = {},
): Program {
  const { layers, kvHeads, headDim, vocabSize } = model.dimensions
  const ids = input('input_ids', 'int64', ['B', 'T'])
  const positions = input('position_ids', 'int64', ['B', 'T'])
  const blocks = input('block_ids', 'int64', ['B', 'T'])
  const ends = input('block_ends', 'int64', ['B', 'T'])
  const past = Array.from({ length: layers }, (_, layer) => ({
    key: input(`past_key.${layer}`, 'float32', ['B', 'C', kvHeads * headDim]),
    value: input(`past_value.${layer}`, 'float32', ['B', 'C', kvHeads * headDim]),
  }))
  const rows = input('row_index', 'int64', ['R'])
  const lengths = input('cache_length', 'int64', ['B'])
  const bias = cachedAttentionBias(blocks, ends, lengths, past[0].key)
  const places = cachePlaces(lengths, ids)
  const present: Record<string, Tensor> = {}
  const weights = createWeights(new Map([...model.parameters, ...adapter]), formats)
  const gate = adapter.size > 0 ? input('gate', 'float32', ['B', 'T', 1]) : undefined
  const chosenGate = gate && gatherRows(reshape(gate, [product(['B', 'T']), 1]), rows)
  // Positions chosen after the last attention have one axis less.
  const gated = gate && weights.gated((x) => (x.shape.length === 3 ? gate : (chosenGate as Tensor)))
  const { hidden, head } = model.trace(gated ?? weights, {
    ids,
    positions,
    ...(gate ? { embeddings: (h) => add(mul(h, sub(1, gate)), mul(gate, weights(maskEmbeddingName(model)))) } : {}),
    ...(softMask === undefined
      ? {}
      : {
          embeddings: (h) =>
            softEmbedding(
              h,
              embeddingOf(softMask, weights(model.embeddingName)),
              input('mask_share', 'float32', ['B', 'T', 1]),
            ),
        }),
    attention(q, k, v, layer) {
      const keys = storeInCache(past[layer].key, places, k)
      const values = storeInCache(past[layer].value, places, v)
      present[`present_key.${layer}`] = keys
      present[`present_value.${layer}`] = values
      return cachedAttention(q, { keys, values, bias }, kvHeads)
    },
    select: (x) => gatherRows(reshape(x, [product(x.shape.slice(0, -1)), lastDim(x)]), rows),
  })
  const logits = linear(hidden, head)
  const tokenBias = input('token_bias', 'float32', [vocabSize])
  const { token, confidence } = predict(logits, tokenBias, input('logit_scale', 'float32', ['R']))
  return { name: `${model.config.model_type}-decode`, outputs: { token, confidence, logits, ...present } }
}

const embeddingOf = (token: number, embedding: Tensor): Tensor =>
  gatherRows(embedding, constant({ dtype: 'int64', shape: [1, 1], data: BigInt64Array.of(BigInt(token)) }))

/** Added to the lengths in a quotient, as DMax does below: neither is 0 then. */
const LENGTH_EPSILON = 1e-6

/**
 * `(1 - share) E(token) + share E(mask)`, given the length `(1 - share) |E(token)| + share |E(mask)|` (DMax's released code,
 * `decode_uniform`). A share of 0 changes nothing, bit for bit. h [B, T, H], mask [1, 1, H], share [B, T, 1].
 */
function softEmbedding(h: Tensor, mask: Tensor, share: Tensor): Tensor {
  const between = (a: Tensor, b: Tensor) => add(a, mul(share, sub(b, a)))
  const length = (x: Tensor) => sqrt(sum(mul(x, x), [2], true))
  const mixture = between(h, mask)
  const wanted = add(between(length(h), length(mask)), LENGTH_EPSILON)
  return mul(mixture, div(wanted, add(length(mixture), LENGTH_EPSILON)))
}

/** Weights of a model: values, or float32 ones that lie on the executor and may change there, as they do in training. */
export type DecodeWeights = ReadonlyMap<string, InferenceParameter> | { resident: Readonly<Record<string, Resident>> }

/**
 * Loads the inference program with the weights inside the session, packed once (see `loadInference`), or as inputs where they lie
 * on the executor.
 */
export function loadDecodeProgram(
  executor: Executor,
  model: Model,
  weights: DecodeWeights,
  { adapter = new Map(), softMask }: DecodeExtras = {},
): Promise<Session> {
  if ('resident' in weights) return executor.load(decodeProgram(model, undefined, { softMask }), { optimize: false })
  const shapes = new Map([...adapter].map(([name, { shape }]) => [name, shape]))
  const formats = formatsOf(weights, executor.device)
  const program = decodeProgram(model, formats, { adapter: shapes, softMask })
  return loadInference(
    executor,
    program,
    new Map([...model.parameters, ...shapes]),
    new Map<string, InferenceParameter>([...weights, ...adapter]),
    { formats },
  )
}
