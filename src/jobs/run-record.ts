// What a training run came from and has cost, by its recipe.
import { accountOf, type Spent } from '../account/account.ts'
import { type Method, type RunRecord, startRecord } from '../account/record.ts'
import { pull } from '../checkpoint/index.ts'
import { filePaths } from './before-training.ts'
import type { Recipe } from './recipe.ts'

type Recorded = Pick<Recipe, 'model' | 'threads' | 'cost' | 'card'> & {
  data: object & Partial<Pick<Recipe['data'], 'train_path' | 'validation_path'>>
}

/** Reads and hashes base and data of a recipe. Returns the record of its run, when so much has been spent. */
export async function runRecord(
  recipe: Recorded,
  { method, command, signal }: { method: Method; command: string; signal: AbortSignal | undefined },
): Promise<(spent: Spent) => RunRecord> {
  const { model, threads, data, cost, card } = recipe
  const record = await startRecord({
    ...{ method, command, card, signal },
    threads: threads || undefined,
    base: { name: model, path: (await pull(model, { signal })).path },
    data: filePaths(data.train_path ?? []),
    heldOut: data.validation_path ?? [],
    settings: recipe,
  })
  return (spent) => ({ ...record, account: accountOf(spent, cost) })
}
