// A small Llama of random weights, for tests: grouped-query attention, untied head.

import { random } from '../src/core/random.ts'
import type { Parameter } from '../src/core/types.ts'
import { createModel, type Model } from '../src/models/index.ts'

export function tinyLlama(config: Record<string, unknown> = {}): { model: Model; weights: Map<string, Parameter> } {
  const model = createModel({
    model_type: 'llama',
    vocab_size: 40,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 1024,
    tie_word_embeddings: false,
    ...config,
  })
  const weights = new Map<string, Parameter>()
  for (const [name, shape] of model.parameters) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1)
    // Wide enough that attention is not uniform and predictions depend on the context.
    if (shape.length > 1) {
      random(1, weights.size).fillNormal(data)
      for (let i = 0; i < data.length; i++) data[i] *= 1.5 / Math.sqrt(shape[1])
    }
    weights.set(name, { shape, data })
  }
  return { model, weights }
}
