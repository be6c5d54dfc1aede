// Saves what a run has trained.
import { saveCheckpoint } from '../checkpoint/index.ts'
import type { LoadedModel } from '../checkpoint/load.ts'
import { type InitialParameter, valuesOf } from '../core/types.ts'

/** Writes a model with these weights as a folder in Hugging Face layout. Each tensor is read when it is written. */
export function saveTrained(
  folder: string,
  { model, tokenizer, generationConfig }: Pick<LoadedModel, 'model' | 'tokenizer' | 'generationConfig'>,
  weights: ReadonlyMap<string, InitialParameter>,
): Promise<unknown> {
  const parameters = [...weights].map(
    ([name, parameter]) =>
      [name, { shape: parameter.shape, read: async () => (await valuesOf(parameter)).data }] as const,
  )
  return saveCheckpoint(folder, {
    config: model.config,
    parameters: new Map(parameters),
    tokenizerFiles: tokenizer.files(),
    generationConfig,
  })
}
