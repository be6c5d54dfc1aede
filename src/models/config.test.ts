// What is refused of a config.json before an architecture sees it, by name.
import { expect, it } from 'vitest'
import type { ModelConfig } from '../core/types.ts'
import { createModel } from './index.ts'

const small: ModelConfig = {
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 16,
  max_position_embeddings: 32,
}

it('a model with a mask token and a block size, or neither, is fine', () => {
  for (const more of [{}, { block_size: null, mask_token_id: null }, { block_size: 32, mask_token_id: 15 }])
    expect(createModel({ ...small, ...more }).dimensions.vocabSize).toBe(16)
})

it.each([
  [{ block_size: 1e9 }, 'config.json: block_size must be a whole number from 1 to 8192, got 1000000000'],
  [{ block_size: 0 }, 'config.json: block_size must be a whole number'],
  [{ block_size: 2.5 }, 'config.json: block_size must be a whole number'],
  [{ block_size: '8' }, 'config.json: block_size must be a whole number'],
  [{ mask_token_id: 16 }, 'config.json: mask_token_id must be an id below vocab_size (16), got 16'],
  [{ mask_token_id: -1 }, 'config.json: mask_token_id'],
  [{ mask_token_id: '3' }, 'config.json: mask_token_id'],
  [{ causal_context: 'yes' }, 'config.json: causal_context must be true or false, got "yes"'],
  [{ same_token_labels: 1 }, 'config.json: same_token_labels must be true or false, got 1'],
  [{ num_hidden_layers: 1e9 }, 'config.json: num_hidden_layers must be a whole number from 1 to 10000'],
  [{ hidden_size: 1e12 }, 'config.json: hidden_size must be'],
  [{ vocab_size: 2 ** 40 }, 'config.json: vocab_size must be'],
  [{ max_position_embeddings: 1e15 }, 'config.json: max_position_embeddings must be'],
  [{ rms_norm_eps: Number.POSITIVE_INFINITY }, 'config.json: rms_norm_eps must be a positive number'],
  [{ rope_theta: Number.POSITIVE_INFINITY }, 'config.json: rope_theta must be a positive number'],
])('%j', (more, message) => {
  expect(() => createModel({ ...small, ...more })).toThrow(message)
})

it('a model of several parts is refused by name, with what to do', () => {
  const { model_type, ...sizes } = small
  const config = { model_type: 'llava', text_config: { model_type, ...sizes }, vision_config: { hidden_size: 8 } }
  expect(() => createModel(config)).toThrow(
    /several parts \(text_config, vision_config\).*"llama": save that on its own/,
  )
})
