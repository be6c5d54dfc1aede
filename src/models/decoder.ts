// The pre-norm decoder that the families share: grouped-query attention with rotary embedding, RMSNorm, a feed-forward
// part of the family's choice. A family says its names and options; its sizes are in config.json.

import { ConfigError, type ModelConfig } from '../core/types.ts'
import { add } from '../graph/ops/elementwise.ts'
import { gatherRows, reshape, slice } from '../graph/ops/layout.ts'
import { rmsNorm } from '../graph/ops/rms-norm.ts'
import { rope } from '../graph/ops/rope.ts'
import { scope, type Tensor } from '../graph/tensor.ts'
import { project, projectionShapes } from '../nn/projection.ts'
import { ropeConfig, ropeRows, ropeTables } from '../nn/rope.ts'
import type { Weights } from '../nn/weights.ts'
import { reader } from './config.ts'
import { denseMlp, type Mlp } from './mlp.ts'
import type { Model, Routing } from './types.ts'

/** Far above any model: each layer is traced, so a broken config must not ask for a billion. */
const MOST_LAYERS = 10_000

/** Names in a checkpoint, without `.weight`; those of a layer are relative to it, `{layers}.{i}`. */
export interface DecoderNames {
  embedding: string
  layers: string
  attentionNorm: string
  /** Three projections, or one of [(heads + 2 kvHeads) * D, H]: the rows of all queries, then all keys, then all values. */
  projections: { query: string; key: string; value: string } | { fused: string }
  /** RMSNorm over each head of the queries and of the keys, before they are rotated. Absent: none. */
  headNorms?: { query: string; key: string }
  output: string
  mlpNorm: string
  finalNorm: string
  /** The output head, where it is not the embedding. */
  head: string
}

/** The names of Llama in Hugging Face's layout, which most families have. */
export const llamaNames: DecoderNames = {
  embedding: 'model.embed_tokens',
  layers: 'model.layers',
  attentionNorm: 'input_layernorm',
  projections: { query: 'self_attn.q_proj', key: 'self_attn.k_proj', value: 'self_attn.v_proj' },
  output: 'self_attn.o_proj',
  mlpNorm: 'post_attention_layernorm',
  finalNorm: 'model.norm',
  head: 'lm_head',
}

/** Which keys of config.json say what. */
const llamaKeys = {
  hiddenSize: 'hidden_size',
  layers: 'num_hidden_layers',
  heads: 'num_attention_heads',
  kvHeads: 'num_key_value_heads',
  vocabSize: 'vocab_size',
  maxPositions: 'max_position_embeddings',
  tied: 'tie_word_embeddings',
  activation: 'hidden_act',
}

export interface DecoderOptions {
  /** Default: `llamaNames`. */
  names?: DecoderNames
  /** Keys of config.json that are not Llama's. */
  keys?: Partial<typeof llamaKeys>
  /** The projections of queries, keys and values have biases. Default false. */
  qkvBias?: boolean
  /** The output projection of the attention has a bias. Default false. */
  outputBias?: boolean
  /** The feed-forward part of a layer. Default: dense, of the config's `intermediate_size`, without biases. */
  mlp?(layer: number, hiddenSize: number): Mlp
}

/** The model of a family. Throws UserError that names the key where the config does not make sense. */
export function createDecoder(config: ModelConfig, options: DecoderOptions = {}): Model {
  const { names = llamaNames, qkvBias = false, outputBias = false } = options
  const keys = { ...llamaKeys, ...options.keys }
  const read = reader(config)
  const hiddenSize = read.size(keys.hiddenSize)
  const layers = read.size(keys.layers, undefined, MOST_LAYERS)
  const heads = read.size(keys.heads)
  const kvHeads = read.size(keys.kvHeads, heads)
  if (config.head_dim == null) read.divides(keys.heads, heads, keys.hiddenSize, hiddenSize)
  const headDim = read.size('head_dim', hiddenSize / heads)
  if (headDim % 2 !== 0) throw new ConfigError(`head_dim (${headDim}) must be even: rotary embedding turns pairs`)
  const { mlp = (_, hidden) => denseMlp(hidden, read.size('intermediate_size')) } = options
  const vocabSize = read.size(keys.vocabSize)
  const epsilon = read.positive('rms_norm_eps', 1e-6)
  const tied = read.flag(keys.tied, false)
  read.oneOf(keys.activation, ['silu', 'swish'], 'silu')
  read.divides(keys.kvHeads, kvHeads, keys.heads, heads)
  const rotary = ropeConfig(config)
  const rotaryDim = headDim * rotary.partialRotaryFactor
  if (rotaryDim > headDim || rotaryDim % 2 !== 0)
    throw new ConfigError(
      `partial_rotary_factor (${rotary.partialRotaryFactor}) must make an even part of head_dim (${headDim})`,
    )
  const mlps = Array.from({ length: layers }, (_, i) => mlp(i, hiddenSize))
  const [queryWidth, keyWidth] = [heads * headDim, kvHeads * headDim]

  const { projections, headNorms } = names
  const layerShapes: [string, readonly number[]][] = [
    [`${names.attentionNorm}.weight`, [hiddenSize]],
    ...('fused' in projections
      ? projectionShapes(projections.fused, queryWidth + 2 * keyWidth, hiddenSize, qkvBias)
      : [
          ...projectionShapes(projections.query, queryWidth, hiddenSize, qkvBias),
          ...projectionShapes(projections.key, keyWidth, hiddenSize, qkvBias),
          ...projectionShapes(projections.value, keyWidth, hiddenSize, qkvBias),
        ]),
    ...projectionShapes(names.output, hiddenSize, queryWidth, outputBias),
    ...Object.values(headNorms ?? {}).map((name): [string, number[]] => [`${name}.weight`, [headDim]]),
    [`${names.mlpNorm}.weight`, [hiddenSize]],
  ]
  const parameters = new Map<string, readonly number[]>([[`${names.embedding}.weight`, [vocabSize, hiddenSize]]])
  mlps.forEach((part, i) => {
    for (const [name, shape] of [...layerShapes, ...part.parameters])
      parameters.set(`${names.layers}.${i}.${name}`, shape)
  })
  const inLayer = (i: number, name: string) => `${names.layers}.${i}.${name}`
  const buffers = mlps.flatMap((part, i) => (part.buffers ?? []).map((name) => inLayer(i, name)))
  const mixtures = mlps.flatMap(({ mixture }, i) => {
    if (!mixture) return []
    const { router, bias } = mixture
    return [{ ...mixture, router: inLayer(i, router), bias: bias === undefined ? undefined : inLayer(i, bias) }]
  })
  parameters.set(`${names.finalNorm}.weight`, [hiddenSize])
  if (!tied) parameters.set(`${names.head}.weight`, [vocabSize, hiddenSize])

  /** x [batch, length, H] -> queries, keys and values [batch, length, heads * D], not yet rotated. */
  function attentionInputs(x: Tensor, layer: Weights): [q: Tensor, k: Tensor, v: Tensor] {
    if (!('fused' in projections)) {
      const { query, key, value } = projections
      return [project(x, layer.in(query)), project(x, layer.in(key)), project(x, layer.in(value))]
    }
    const all = project(x, layer.in(projections.fused))
    const [keysAt, valuesAt] = [queryWidth, queryWidth + keyWidth]
    return [slice(all, 2, 0, keysAt), slice(all, 2, keysAt, valuesAt), slice(all, 2, valuesAt, valuesAt + keyWidth)]
  }

  const eachHead = (x: Tensor, weight: Tensor): Tensor => {
    const [batch, length, width] = x.shape
    const split = reshape(x, [batch, length, Number(width) / headDim, headDim])
    return reshape(rmsNorm(split, weight, epsilon), x.shape)
  }

  return {
    config,
    dimensions: {
      vocabSize,
      hiddenSize,
      layers,
      heads,
      kvHeads,
      headDim,
      maxPositions: read.size(keys.maxPositions, 2048),
    },
    parameters,
    buffers: new Set(buffers),
    mixtures,
    embeddingName: `${names.embedding}.weight`,
    trace(weights, { ids, positions, positionCount, attention, embeddings, select }) {
      const embedding = weights(`${names.embedding}.weight`)
      const { cos, sin, index } =
        positionCount === undefined
          ? ropeRows(rotary, rotaryDim, positions)
          : { ...ropeTables(rotary, rotaryDim, positionCount), index: positions }
      const routing: Routing[] = []
      let h = gatherRows(embedding, ids)
      if (embeddings) h = embeddings(h)
      mlps.forEach((mlp, i) => {
        h = weights.trace(`${names.layers}.${i}`, (layer) => {
          const norm = (x: Tensor, name: string) => rmsNorm(x, layer(`${name}.weight`), epsilon)
          const x = norm(h, names.attentionNorm)
          let mixed = scope('self_attn', () => {
            let [q, k, v] = attentionInputs(x, layer)
            if (headNorms) {
              q = eachHead(q, layer(`${headNorms.query}.weight`))
              k = eachHead(k, layer(`${headNorms.key}.weight`))
            }
            q = rope(q, index, cos, sin, heads)
            return attention(q, rope(k, index, cos, sin, kvHeads), v, i)
          })
          let residual = h
          if (select && i === layers - 1) {
            mixed = select(mixed)
            residual = select(residual)
          }
          const attended = add(residual, project(mixed, layer.in(names.output)))
          const y = norm(attended, names.mlpNorm)
          return scope('mlp', () =>
            add(
              attended,
              mlp.trace(y, layer, (done) => routing.push(done)),
            ),
          )
        })
      })
      const hidden = rmsNorm(h, weights(`${names.finalNorm}.weight`), epsilon)
      return { hidden, head: tied ? embedding : weights(`${names.head}.weight`), routing }
    },
  }
}
