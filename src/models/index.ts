// The registry of architectures: adding a family is adding its file and one line here.
import { type ModelConfig, UserError } from '../types.ts'
import { bailingMoeV2, llada2Moe } from './bailing-moe-v2.ts'
import { dream } from './dream.ts'
import { llada } from './llada.ts'
import { llama } from './llama.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { qwen3Moe } from './qwen3-moe.ts'
import { sdar } from './sdar.ts'
import type { Architecture, Model } from './types.ts'

export type { Dimensions, Model } from './types.ts'

const architectures: readonly Architecture[] = [
  llama,
  qwen2,
  qwen3,
  qwen3Moe,
  bailingMoeV2,
  llada2Moe,
  llada,
  dream,
  sdar,
]

export const supportedModelTypes: readonly string[] = architectures.map(({ modelType }) => modelType)

/** The model that a config.json describes. Throws UserError for an unknown `model_type` or sizes that make no sense. */
export function createModel(config: ModelConfig): Model {
  const architecture = architectures.find(({ modelType }) => modelType === config.model_type)
  if (!architecture)
    throw new UserError(
      `config.json: model_type ${JSON.stringify(config.model_type)} is not supported; supported: ${supportedModelTypes.join(', ')}`,
    )
  return architecture.create(config)
}
