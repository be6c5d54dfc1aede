// Supervised fine-tuning: the job of `convert`, by a recipe of its own.
import { openCheckpoint, pull } from '../checkpoint/index.ts'
import type { ModelConfig } from '../core/types.ts'
import { type ConvertOptions, type ConvertResult, convert } from './convert.ts'
import { parseSftRecipe } from './sft-recipe.ts'

/** The config.json of a model, which is fetched where it is not on this machine. */
export async function modelConfig(model: string, signal?: AbortSignal): Promise<ModelConfig> {
  const checkpoint = await openCheckpoint((await pull(model, signal ? { signal } : {})).path)
  try {
    return checkpoint.config
  } finally {
    await checkpoint.close()
  }
}

/**
 * Fine-tunes a model on chats, or prompts and completions, as the recipe says; see `convert`, whose job it is. Throws UserError
 * as `parseSftRecipe` does.
 */
export async function sft(options: ConvertOptions): Promise<ConvertResult> {
  const { recipe, signal } = options
  await options.fetch?.(recipe.model)
  const command = options.command ?? 'unmask sft --recipe recipe.yaml'
  return convert({ ...options, command, recipe: parseSftRecipe(recipe, await modelConfig(recipe.model, signal)) })
}
