// Saves what a run has trained, with its card.
import { join } from 'node:path'
import { type CardModel, cardFiles } from '../account/card.ts'
import type { RunRecord } from '../account/record.ts'
import { writeTextAtomically } from '../checkpoint/file.ts'
import { saveCheckpoint } from '../checkpoint/index.ts'
import type { LoadedModel } from '../checkpoint/load.ts'
import { type InitialParameter, valuesOf } from '../core/types.ts'

/** Writes a model with these weights as a folder in Hugging Face layout, with its card. Each tensor is read when it is written. */
export function saveTrained(
  folder: string,
  { model, tokenizer, generationConfig }: Pick<LoadedModel, 'model' | 'tokenizer' | 'generationConfig'>,
  weights: ReadonlyMap<string, InitialParameter>,
  record: RunRecord,
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
    files: cardFiles(record, model),
  })
}

/** Writes provenance.json and README.md into a folder that holds a model or an adapter. */
export async function writeCard(folder: string, record: RunRecord, model: CardModel): Promise<void> {
  for (const [name, text] of Object.entries(cardFiles(record, model)))
    await writeTextAtomically(join(folder, name), text)
}
