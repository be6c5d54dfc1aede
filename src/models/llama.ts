// Llama (Llama 2 and 3, SmolLM2, TinyLlama ...): pre-norm, grouped-query attention, rotary embedding, SwiGLU.
import { add } from '../graph/ops/elementwise.ts'
import { gatherRows } from '../graph/ops/layout.ts'
import { linear } from '../graph/ops/linear.ts'
import { rmsNorm } from '../graph/ops/rms-norm.ts'
import { rope } from '../graph/ops/rope.ts'
import { swiglu } from '../graph/ops/swiglu.ts'
import type { Tensor } from '../graph/tensor.ts'
import { ropeConfig, ropeTables } from '../nn/rope.ts'
import type { Weights } from '../nn/weights.ts'
import { type ModelConfig, UserError } from '../types.ts'
import { reader } from './config.ts'
import type { Architecture, Model } from './types.ts'

/** Far above any model: each layer is traced, so a broken config must not ask for a billion. */
const MOST_LAYERS = 10_000

export const llama: Architecture = {
  modelType: 'llama',
  create(config: ModelConfig): Model {
    const read = reader(config)
    const hiddenSize = read.size('hidden_size')
    const layers = read.size('num_hidden_layers', undefined, MOST_LAYERS)
    const heads = read.size('num_attention_heads')
    const kvHeads = read.size('num_key_value_heads', heads)
    if (config.head_dim == null) read.divides('num_attention_heads', heads, 'hidden_size', hiddenSize)
    const headDim = read.size('head_dim', hiddenSize / heads)
    if (headDim % 2 !== 0)
      throw new UserError(`config.json: head_dim (${headDim}) must be even: rotary embedding turns pairs`)
    const intermediate = read.size('intermediate_size')
    const vocabSize = read.size('vocab_size')
    const epsilon = read.positive('rms_norm_eps', 1e-6)
    const tied = read.flag('tie_word_embeddings', false)
    const attentionBias = read.flag('attention_bias', false)
    const mlpBias = read.flag('mlp_bias', false)
    read.oneOf('hidden_act', ['silu', 'swish'], 'silu')
    read.divides('num_key_value_heads', kvHeads, 'num_attention_heads', heads)
    const rotary = ropeConfig(config)

    const parameters = new Map<string, readonly number[]>([['model.embed_tokens.weight', [vocabSize, hiddenSize]]])
    const declareLinear = (name: string, out: number, inner: number, bias: boolean) => {
      parameters.set(`${name}.weight`, [out, inner])
      if (bias) parameters.set(`${name}.bias`, [out])
    }
    for (let i = 0; i < layers; i++) {
      const layer = `model.layers.${i}`
      parameters.set(`${layer}.input_layernorm.weight`, [hiddenSize])
      declareLinear(`${layer}.self_attn.q_proj`, heads * headDim, hiddenSize, attentionBias)
      declareLinear(`${layer}.self_attn.k_proj`, kvHeads * headDim, hiddenSize, attentionBias)
      declareLinear(`${layer}.self_attn.v_proj`, kvHeads * headDim, hiddenSize, attentionBias)
      declareLinear(`${layer}.self_attn.o_proj`, hiddenSize, heads * headDim, attentionBias)
      parameters.set(`${layer}.post_attention_layernorm.weight`, [hiddenSize])
      declareLinear(`${layer}.mlp.gate_proj`, intermediate, hiddenSize, mlpBias)
      declareLinear(`${layer}.mlp.up_proj`, intermediate, hiddenSize, mlpBias)
      declareLinear(`${layer}.mlp.down_proj`, hiddenSize, intermediate, mlpBias)
    }
    parameters.set('model.norm.weight', [hiddenSize])
    if (!tied) parameters.set('lm_head.weight', [vocabSize, hiddenSize])

    return {
      config,
      dimensions: {
        vocabSize,
        hiddenSize,
        layers,
        heads,
        kvHeads,
        headDim,
        maxPositions: read.size('max_position_embeddings', 2048),
      },
      parameters,
      embeddingName: 'model.embed_tokens.weight',
      trace(weights, { ids, positions, positionCount, attention, embeddings, select }) {
        const embedding = weights('model.embed_tokens.weight')
        const { cos, sin } = ropeTables(rotary, headDim, positionCount)
        let h = gatherRows(embedding, ids)
        if (embeddings) h = embeddings(h)
        for (let i = 0; i < layers; i++) {
          h = weights.trace(`model.layers.${i}`, (layer) => {
            const x = rmsNorm(h, layer('input_layernorm.weight'), epsilon)
            let mixed = layer.trace('self_attn', (w) => {
              const q = rope(project(x, w.in('q_proj')), positions, cos, sin, heads)
              const k = rope(project(x, w.in('k_proj')), positions, cos, sin, kvHeads)
              return attention(q, k, project(x, w.in('v_proj')), i)
            })
            let residual = h
            if (select && i === layers - 1) {
              mixed = select(mixed)
              residual = select(residual)
            }
            const attended = add(residual, project(mixed, layer.in('self_attn.o_proj')))
            const y = rmsNorm(attended, layer('post_attention_layernorm.weight'), epsilon)
            return layer.trace('mlp', (w) =>
              add(
                attended,
                project(swiglu(project(y, w.in('gate_proj')), project(y, w.in('up_proj'))), w.in('down_proj')),
              ),
            )
          })
        }
        const hidden = rmsNorm(h, weights('model.norm.weight'), epsilon)
        return { hidden, head: tied ? embedding : weights('lm_head.weight') }
      },
    }
  },
}

const project = (x: Tensor, w: Weights): Tensor => linear(x, w('weight'), w.has('bias') ? w('bias') : undefined)
