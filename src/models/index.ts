// The registry of architectures: adding a family is adding its file and one line here.
import { ConfigError, type ModelConfig } from '../core/types.ts'
import { bailingMoeV2, llada2Moe, llada2MoeVeomni } from './bailing-moe-v2.ts'
import { checkDecoding, checkTextOnly } from './config.ts'
import { dream } from './dream.ts'
import { llada } from './llada.ts'
import { llama } from './llama.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { qwen3Moe } from './qwen3-moe.ts'
import { sdar } from './sdar.ts'
import type { Architecture, Model } from './types.ts'

export type { Dimensions, MixtureLayer, Model } from './types.ts'

const architectures: readonly Architecture[] = [
  llama,
  qwen2,
  qwen3,
  qwen3Moe,
  bailingMoeV2,
  llada2Moe,
  llada2MoeVeomni,
  llada,
  dream,
  sdar,
]

export const supportedModelTypes: readonly string[] = architectures.map(({ modelType }) => modelType)

/** The model that a config.json describes. Throws UserError for an unknown `model_type` or sizes that make no sense. */
export function createModel(config: ModelConfig): Model {
  checkTextOnly(config)
  const model = architectureOf(config).create(config)
  checkDecoding(config, model.dimensions.vocabSize)
  return model
}

/**
 * The config.json of a model of this one's architecture once it was trained, and in words what of its checkpoint is not
 * part of that. A diffusion model may have another `model_type` than its base.
 */
export function trainedConfig(
  config: ModelConfig,
  objective: 'diffusion' | 'ar' | 'hybrid',
): { config: ModelConfig; dropped?: string } {
  return architectureOf(config).trained?.(config, objective) ?? { config }
}

/** Parameters in all, and those that one position uses: of each mixture the experts that it goes to. */
export function parameterCounts({ parameters, mixtures }: Model): { total: number; active: number } {
  let total = 0
  for (const shape of parameters.values()) total += shape.reduce((a, b) => a * b, 1)
  const idle = mixtures.reduce((sum, { experts, topK, expertSize }) => sum + (experts - topK) * expertSize, 0)
  return { total, active: total - idle }
}

function architectureOf(config: ModelConfig): Architecture {
  const architecture = architectures.find(({ modelType }) => modelType === config.model_type)
  if (!architecture)
    throw new ConfigError(
      `model_type ${JSON.stringify(config.model_type)} is not supported; supported: ${supportedModelTypes.join(', ')}`,
    )
  return architecture
}
