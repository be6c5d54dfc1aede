// What a model came from and cost: reads the records that lie beside models and checkpoints. Measures nothing.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Account, accountOf } from '../account/account.ts'
import { lineage, type Method, type RunRecord, readRecord } from '../account/record.ts'
import type { CostSettings } from '../account/settings.ts'
import { UserError } from '../core/types.ts'
import { latestCheckpoint } from '../train/checkpoint.ts'

/** A step on the way to a model. */
export interface CostStep {
  method: Method
  /** What it began with. */
  base: string
  command: string
  created: string
  account: Account | undefined
}

export interface RunCost {
  /** The folder whose record was read. */
  path: string
  record: RunRecord
  /** The steps of which there are records, the first one first. */
  steps: CostStep[]
  /** Sums of the steps that trained. */
  total: Account
}

/**
 * What the model in a folder cost, or that of a run: `model`, else `adapter`, else its newest checkpoint. `prices` replace those
 * of the recipes. Throws UserError where there is no record.
 */
export async function runCost(path: string, prices: Partial<CostSettings> = {}): Promise<RunCost> {
  const found = await findRecord(path)
  const steps = lineage(found.record).map(({ method, base, command, created, account }) => ({
    ...{ method, base: base.name, command, created },
    account: account && repriced(account, prices),
  }))
  const accounts = steps.flatMap(({ account }) => account ?? [])
  const [first] = accounts
  if (!first) throw new UserError(`${found.path}: nothing was trained on the way to it, so there is no account`)
  const sum = (value: (account: Account) => number) => accounts.reduce((total, account) => total + value(account), 0)
  const total: Account = {
    ...first,
    tokens: sum(({ tokens }) => tokens),
    flops: sum(({ flops }) => flops),
    seconds: sum(({ seconds }) => seconds),
    joules: sum(({ joules }) => joules),
    energy: accounts.every(({ energy }) => energy === 'measured') ? 'measured' : 'estimated',
    cost: sum(({ cost }) => cost),
    currency: [...new Set(accounts.map(({ currency }) => currency))].join('+'),
    co2Kg: sum(({ co2Kg }) => co2Kg),
  }
  return { ...found, steps, total }
}

const repriced = ({ energy, joules, ...spent }: Account, prices: Partial<CostSettings>): Account =>
  accountOf({ ...spent, joules: energy === 'measured' ? joules : undefined }, { ...spent.prices, ...prices })

/** The record of a model, an adapter or a run. */
async function findRecord(path: string): Promise<Pick<RunCost, 'path' | 'record'>> {
  const found = await stat(path).catch(() => undefined)
  if (!found?.isDirectory())
    throw new UserError(found ? `${path}: is a file; name the folder of a run or a model` : `${path}: no such folder`)
  const newest = await latestCheckpoint(path)
  for (const folder of [path, join(path, 'model'), join(path, 'adapter'), ...(newest ? [newest.path] : [])]) {
    const record = await readRecord(folder)
    if (record) return { path: folder, record }
  }
  throw new UserError(
    `${path}: no provenance.json in it, in its model or its checkpoints: it was not trained by this version of unmask`,
  )
}
