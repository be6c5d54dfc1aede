// Llama against a plain float64 forward pass, with the options that the golden model does not have; and broken configs.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { logits } from '../../test/golden/logits.ts'
import { random } from '../core/random.ts'
import { type ModelConfig, type Parameter, UserError } from '../core/types.ts'
import { inverseFrequencies, ropeConfig } from '../nn/rope.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createModel, type Model, supportedModelTypes } from './index.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const base: ModelConfig = {
  model_type: 'llama',
  vocab_size: 13,
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  rms_norm_eps: 1e-5,
}

function randomWeights(model: Model): Map<string, Parameter> {
  const weights = new Map<string, Parameter>()
  let stream = 0
  for (const [name, shape] of model.parameters) {
    const data = random(3, stream++).fillNormal(new Float32Array(shape.reduce((a, b) => a * b, 1)))
    weights.set(name, { shape, data: data.map((x) => x * 0.4) })
  }
  return weights
}

/** Logits of one row under a causal mask. */
function reference(config: ModelConfig, weights: ReadonlyMap<string, Parameter>, ids: readonly number[]): number[] {
  const hidden = config.hidden_size as number
  const heads = config.num_attention_heads as number
  const kvHeads = (config.num_key_value_heads as number | undefined) ?? heads
  const headDim = (config.head_dim as number | undefined) ?? hidden / heads
  const data = (name: string) => (weights.get(name) as Parameter).data
  const linear = (x: number[], name: string): number[] => {
    const { data: w, shape } = weights.get(`${name}.weight`) as Parameter
    const bias = weights.get(`${name}.bias`)?.data
    return Array.from({ length: shape[0] }, (_, o) =>
      x.reduce((sum, value, i) => sum + value * w[o * shape[1] + i], bias?.[o] ?? 0),
    )
  }
  const norm = (x: number[], name: string): number[] => {
    const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length
    return x.map((value, i) => (value * data(name)[i]) / Math.sqrt(mean + (config.rms_norm_eps as number)))
  }
  const frequencies = inverseFrequencies(ropeConfig(config), headDim)
  const rotate = (x: number[], position: number): number[] =>
    x.map((value, i) => {
      const [d, half] = [i % headDim, headDim / 2]
      const angle = position * frequencies[d % half]
      return d < half
        ? value * Math.cos(angle) - x[i + half] * Math.sin(angle)
        : value * Math.cos(angle) + x[i - half] * Math.sin(angle)
    })
  const plus = (a: number[], b: number[]) => a.map((value, i) => value + b[i])

  let states = ids.map((id) => [...data('model.embed_tokens.weight').slice(id * hidden, (id + 1) * hidden)])
  for (let i = 0; i < (config.num_hidden_layers as number); i++) {
    const layer = `model.layers.${i}`
    const normed = states.map((x) => norm(x, `${layer}.input_layernorm.weight`))
    const q = normed.map((x, t) => rotate(linear(x, `${layer}.self_attn.q_proj`), t))
    const k = normed.map((x, t) => rotate(linear(x, `${layer}.self_attn.k_proj`), t))
    const v = normed.map((x) => linear(x, `${layer}.self_attn.v_proj`))
    const mixed = q.map((query, t) => {
      const out = new Array<number>(heads * headDim).fill(0)
      for (let head = 0; head < heads; head++) {
        const kvHead = Math.floor(head / (heads / kvHeads))
        const dims = [...Array(headDim).keys()]
        const scores = k.slice(0, t + 1).map((key) => {
          const dot = dims.reduce((s, d) => s + query[head * headDim + d] * key[kvHead * headDim + d], 0)
          return Math.exp(dot / Math.sqrt(headDim))
        })
        const total = scores.reduce((a, b) => a + b, 0)
        for (const d of dims)
          scores.forEach((score, j) => {
            out[head * headDim + d] += (score / total) * v[j][kvHead * headDim + d]
          })
      }
      return linear(out, `${layer}.self_attn.o_proj`)
    })
    states = states.map((x, t) => {
      const attended = plus(x, mixed[t])
      const y = norm(attended, `${layer}.post_attention_layernorm.weight`)
      const gate = linear(y, `${layer}.mlp.gate_proj`)
      const up = linear(y, `${layer}.mlp.up_proj`)
      const inner = gate.map((g, j) => (g / (1 + Math.exp(-g))) * up[j])
      return plus(attended, linear(inner, `${layer}.mlp.down_proj`))
    })
  }
  const head = config.tie_word_embeddings ? 'model.embed_tokens' : 'lm_head'
  return states.flatMap((x) => linear(norm(x, 'model.norm.weight'), head))
}

describe('logits', () => {
  const variants: Record<string, Record<string, unknown>> = {
    'an output head of its own': {},
    'a tied head and grouped queries': { tie_word_embeddings: true, num_attention_heads: 6, num_key_value_heads: 2 },
    'biases everywhere': { attention_bias: true, mlp_bias: true },
    'heads wider than the hidden size': { head_dim: 10, num_key_value_heads: 1 },
    'the rotary scaling of Llama 3': {
      rope_theta: 100,
      rope_scaling: {
        rope_type: 'llama3',
        factor: 4,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
      },
    },
    'linear rotary scaling': { rope_scaling: { type: 'linear', factor: 2 } },
  }
  for (const [variant, extra] of Object.entries(variants))
    it(`with ${variant}`, async () => {
      const config: ModelConfig = { ...base, ...extra }
      const model = createModel(config)
      const weights = randomWeights(model)
      const ids = [3, 1, 12, 0, 7, 7, 5]
      const rows = 1
      const actual = await logits(executor, model, weights, 'causal', {
        rows,
        length: ids.length,
        ids,
        documents: new Int32Array(ids.length),
      })
      const expected = reference(config, weights, ids)
      expect(actual.length).toBe(expected.length)
      const largest = Math.max(...expected.map(Math.abs))
      const error = Math.max(...expected.map((value, i) => Math.abs(value - actual[i])))
      expect(error / largest).toBeLessThan(1e-5)
    })
})

describe('a config', () => {
  it('says the shape of every parameter', () => {
    const { parameters, dimensions, embeddingName } = createModel({
      ...base,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 6,
      attention_bias: true,
    })
    expect(Object.fromEntries(parameters)).toEqual({
      'model.embed_tokens.weight': [13, 12],
      'model.layers.0.input_layernorm.weight': [12],
      'model.layers.0.self_attn.q_proj.weight': [24, 12],
      'model.layers.0.self_attn.q_proj.bias': [24],
      'model.layers.0.self_attn.k_proj.weight': [12, 12],
      'model.layers.0.self_attn.k_proj.bias': [12],
      'model.layers.0.self_attn.v_proj.weight': [12, 12],
      'model.layers.0.self_attn.v_proj.bias': [12],
      'model.layers.0.self_attn.o_proj.weight': [12, 24],
      'model.layers.0.self_attn.o_proj.bias': [12],
      'model.layers.0.post_attention_layernorm.weight': [12],
      'model.layers.0.mlp.gate_proj.weight': [20, 12],
      'model.layers.0.mlp.up_proj.weight': [20, 12],
      'model.layers.0.mlp.down_proj.weight': [12, 20],
      'model.norm.weight': [12],
      'lm_head.weight': [13, 12],
    })
    expect(dimensions).toEqual({
      vocabSize: 13,
      hiddenSize: 12,
      layers: 1,
      heads: 4,
      kvHeads: 2,
      headDim: 6,
      maxPositions: 2048,
    })
    expect(embeddingName).toBe('model.embed_tokens.weight')
  })

  const bad: [Record<string, unknown>, string][] = [
    [{ hidden_size: undefined }, 'hidden_size must be a whole number from 1 to 2147483648, got undefined'],
    [{ vocab_size: 1e12 }, 'vocab_size must be a whole number'],
    [{ intermediate_size: 2.5 }, 'intermediate_size must be a whole number'],
    [{ num_hidden_layers: 0 }, 'num_hidden_layers must be a whole number'],
    [{ num_hidden_layers: 2 ** 30 }, 'num_hidden_layers must be a whole number from 1 to 10000, got 1073741824'],
    [{ num_attention_heads: '2' }, 'num_attention_heads must be a whole number from 1 to 2147483648, got "2"'],
    [{ num_attention_heads: 5 }, 'num_attention_heads (5) must divide hidden_size (12)'],
    [{ num_key_value_heads: 4, num_attention_heads: 6 }, 'num_key_value_heads (4) must divide num_attention_heads (6)'],
    [{ head_dim: 3 }, 'head_dim (3) must be even'],
    [{ partial_rotary_factor: 0.5 }, 'partial_rotary_factor (0.5) must make an even part of head_dim (6)'],
    [{ partial_rotary_factor: 2 }, 'partial_rotary_factor (2) must make an even part of head_dim (6)'],
    [{ rms_norm_eps: 0 }, 'rms_norm_eps must be a positive number, got 0'],
    [{ tie_word_embeddings: 'yes' }, 'tie_word_embeddings must be true or false, got "yes"'],
    [{ hidden_act: 'gelu' }, 'hidden_act must be one of silu, swish, got "gelu"'],
    [{ rope_scaling: { rope_type: 'yarn' } }, 'rope_scaling of type "yarn" is not supported'],
    [{ model_type: 'mamba' }, 'model_type "mamba" is not supported; supported: llama'],
  ]
  for (const [change, message] of bad)
    it(`that is wrong says so: ${message}`, () => {
      const create = () => createModel({ ...base, ...change } as ModelConfig)
      expect(create).toThrow(UserError)
      expect(create).toThrow(`config.json: ${message}`)
    })

  it('of any values gives a model or a UserError', () => {
    const value = fc.oneof(
      fc.jsonValue(),
      fc.integer({ min: -2, max: 40 }),
      fc.double(),
      fc.constantFrom('silu', 'llama3'),
    )
    const keys = [...Object.keys(base), 'num_key_value_heads', 'head_dim', 'rope_theta', 'rope_scaling', 'mlp_bias']
    fc.assert(
      fc.property(fc.constantFrom(...keys), value, fc.constantFrom(...keys), value, (a, x, b, y) => {
        try {
          createModel({ ...base, [a]: x, [b]: y } as ModelConfig)
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('of a supported type is known by it', () => {
    expect(supportedModelTypes).toContain('llama')
  })
})
