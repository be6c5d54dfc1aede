// Dream 7B: a Qwen2.5 continued as a masked diffusion model over the whole text. It kept the token shift of its base:
// the state at i - 1 predicts token i. Its config does not say so, and here every config does.
import { qwen2 } from './qwen2.ts'
import type { Architecture } from './types.ts'

export const dream: Architecture = {
  modelType: 'Dream',
  create: (config) => qwen2.create({ same_token_labels: false, ...config }),
}
