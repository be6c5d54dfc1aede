// Decoding with matrices in float16, as on devices, run on the processor, which computes such products between casts.
import { afterAll, describe, expect, it } from 'vitest'
import { distance } from '../../test/distance.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { loadForInference } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import type { InferenceParameter, Parameter } from '../core/types.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import { createModel, type Model } from '../models/index.ts'
import { formatsOf } from '../nn/inference.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward } from './forward.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())
/** Programs as for a device, and the processor to run them. */
const device: Executor = { ...executor, device: 'webgpu' }

const ids = [3, 1, 12, 0, 7, 7, 5]

async function logits(
  on: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
): Promise<Float32Array> {
  const forward = await createForward(on, model, weights, [], { softMask: 1 })
  const cache = forward.createCache()
  await forward.run(cache, { ids: ids.slice(0, 3), blockSize: 1, rows: [], store: 3 })
  const request = { ids: ids.slice(3), blockSize: 1, rows: [0, 1, 2, 3], store: 0, logits: true }
  const { logits } = await forward.run(cache, request)
  await cache.free()
  await forward.dispose()
  return logits!
}

/**
 * Rounding to float16 changes a value by at most 2^-11 of it. The longest way through two layers goes through an embedding
 * and nine products (values, attention's output, gate or up and down in each layer; the head), in each of which weight,
 * input and result are rounded, independently of each other, so that the squares add. The norms and softmax between them do
 * not make relative errors larger at these sizes.
 */
const tolerance = (products: number) => Math.sqrt(1 + 3 * products) * 2 ** -11

const sizes = {
  vocab_size: 40,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
}
/** Every expert is chosen: which of two is better must not hang on rounding. */
const experts = { num_experts: 4, num_experts_per_tok: 4, moe_intermediate_size: 16 }
const lladaSizes = {
  activation_type: 'silu',
  d_model: 32,
  mlp_hidden_size: 48,
  n_layers: 2,
  n_heads: 4,
  n_kv_heads: 4,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_sequence_length: 64,
  vocab_size: 40,
}

function withWeights(config: Record<string, unknown> & { model_type: string }) {
  const model = createModel(config)
  const weights = new Map<string, Parameter>()
  for (const [name, shape] of model.parameters) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1)
    const scale = shape.length > 1 ? 1.5 / Math.sqrt(shape[1]!) : 0.3
    if (shape.length > 1 || name.endsWith('bias')) random(2, weights.size).fillNormal(data)
    if (shape.length > 1 || name.endsWith('bias')) for (let i = 0; i < data.length; i++) data[i]! *= scale
    weights.set(name, { shape, data })
  }
  return { model, weights }
}

describe('matrices in float16 give the logits of float32 within its precision', () => {
  it.each([
    ['llama', () => tinyLlama()],
    ['llama with a tied head', () => tinyLlama({ tie_word_embeddings: true })],
    ['qwen2, with biases', () => withWeights({ model_type: 'qwen2', ...sizes })],
    ['llada', () => withWeights({ model_type: 'llada', ...lladaSizes })],
    ['qwen3-moe, with experts', () => withWeights({ model_type: 'qwen3_moe', ...sizes, ...experts, head_dim: 8 })],
  ])('%s', async (_, make) => {
    const { model, weights } = make()
    const difference = distance(await logits(device, model, weights), await logits(executor, model, weights))
    expect(difference).toBeLessThan(tolerance(9))
    expect(difference).toBeGreaterThan(0)
  })

  it('of a file that is mapped elsewhere', async () => {
    const { model, parameters } = await loadForInference(tinyModel)
    const difference = distance(await logits(device, model, parameters), await logits(executor, model, parameters))
    // It has four layers: 17 products.
    expect(model.dimensions.layers).toBe(4)
    expect(difference).toBeLessThan(tolerance(17))
    expect(difference).toBeGreaterThan(0)
  })
})

it('matrices are float16 on devices, unless they are quantised or choose experts', async () => {
  const { model, weights } = withWeights({ model_type: 'qwen3_moe', ...sizes, ...experts, head_dim: 8 })
  expect(formatsOf(weights)).toEqual(new Map())
  const half = [...formatsOf(weights, 'cuda')]
  const matrices = [...model.parameters].filter(
    ([name, { length }]) => length === 2 && !name.endsWith('mlp.gate.weight'),
  )
  expect(half).toEqual(matrices.map(([name]) => [name, 'float16']))
  expect(half.map(([name]) => name)).toContain('model.embed_tokens.weight')

  const format = { bits: 4, blockSize: 32, asymmetric: false } as const
  const range = { path: '/a', offset: 0, length: 0 }
  const stored = new Map<string, InferenceParameter>([
    ['few.weight', { shape: [2, 32], format, file: { packed: range, scales: range, zeroPoints: undefined } }],
    ['mapped.weight', { shape: [2, 32], format: undefined, file: { data: range } }],
  ])
  // What cannot be read stays as it is.
  expect(formatsOf(stored, 'webgpu')).toEqual(new Map([['few.weight', format]]))
})
