// SDAR: a Qwen3 continued as a block-diffusion model, each position predicting its own token. Its first configs say
// neither the mask token, which is the same in all sizes, nor the block size, which is 4 where a name says no other.
import { qwen3 } from './qwen3.ts'
import type { Architecture } from './types.ts'

export const sdar: Architecture = {
  modelType: 'sdar',
  create: (config) => qwen3.create({ mask_token_id: 151669, block_size: 4, ...config }),
}
