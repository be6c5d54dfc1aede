// Runs the stages of a pipeline one after the other. What a stage depends on is a key; a stage that has been done with the same
// key is skipped, one that was interrupted goes on, and one whose key has changed is made again where that was asked for.
import { createHash } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from '../account/account.ts'
import { hashData, hashModel, publishableSettings, readRecord } from '../account/record.ts'
import {
  exists,
  makeFolder,
  readJsonObject,
  readModelJson,
  removeIfEmpty,
  writeTextAtomically,
} from '../checkpoint/file.ts'
import { lockFolder } from '../checkpoint/lock.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import { packageVersion } from '../core/versions.ts'
import { isRecord } from '../formats/json.ts'
import { canonicalJson } from '../formats/json-differences.ts'
import type { PipelinePlan, PlannedStage } from './pipeline-recipe.ts'
import { type Figures, type Outcome, type StageEvent, stageKinds } from './pipeline-stages.ts'
import { writeCard } from './save-trained.ts'

export type PipelineEvent =
  | StageEvent
  /** A stage begins, of `total`; `state` as in `StageRow`. */
  | { type: 'stage'; id: string; number: number; total: number; state: StageState }

/** `done`: nothing that it depends on has changed; `interrupted`: it goes on; `changed`: it has been done otherwise. */
export type StageState = 'new' | 'done' | 'interrupted' | 'changed'

export interface StageRow extends Figures {
  id: string
  kind: string
  /** Before this run. */
  state: StageState
  /** Model that it takes. */
  from: string
  /** Model that it made; undefined where it makes none, or has not run. */
  model?: string | undefined
  /** Wall-clock seconds of all its attempts; undefined where it has not run. */
  seconds?: number | undefined
  /** Of a training. */
  account?: Account | undefined
  settings: Record<string, unknown>
}

export interface PipelineOptions {
  /** Make stages again that were done with other settings or data; what they made is deleted. Default false. */
  force?: boolean
  /** The command to record. Default `unmask pipeline recipe.yaml`. */
  command?: string
  signal?: AbortSignal
  onEvent?: (event: PipelineEvent) => void
}

export interface PipelineResult {
  status: 'completed' | 'interrupted'
  outputDir: string
  rows: StageRow[]
  /** The model of the last stage that made one. */
  model: string | undefined
}

/** stage.json: what a stage's folder holds. */
interface StageFile {
  format: 1
  key: string
  done: boolean
  seconds: number
  outcome: Outcome | undefined
}

const stageFile = 'stage.json'

/** What the stages of a plan would do. Writes nothing. */
export const pipelineStates = async (plan: PipelinePlan): Promise<StageRow[]> => statesOf(plan, await keysOf(plan))

async function statesOf(plan: PipelinePlan, keys: ReadonlyMap<string, string>): Promise<StageRow[]> {
  const rows: StageRow[] = []
  for (const stage of plan.stages) {
    const file = await readStage(join(plan.outputDir, stage.id))
    const whole = file?.outcome?.model === undefined || (await exists(file.outcome.model))
    const state = !file
      ? 'new'
      : file.key !== keys.get(stage.id)
        ? 'changed'
        : file.done && whole
          ? 'done'
          : 'interrupted'
    rows.push(await rowOf(plan, stage, state, state === 'done' ? file : undefined))
  }
  return rows
}

/**
 * Runs the stages that are not done. Throws UserError where stages were done with other settings and `force` is not set, where
 * the folder holds something else, and as their jobs do.
 */
export async function runPipeline(plan: PipelinePlan, options: PipelineOptions = {}): Promise<PipelineResult> {
  const { force = false, signal, onEvent = () => undefined, command = 'unmask pipeline recipe.yaml' } = options
  const { outputDir, stages } = plan
  const isNew = await makeFolder(outputDir)
  const unlock = await lockFolder(outputDir)
  try {
    const keys = await keysOf(plan)
    const before = await statesOf(plan, keys)
    const changed = before.filter(({ state }) => state === 'changed')
    if (changed.length > 0 && !force)
      throw new UserError(
        `${outputDir}: ${changed.map(({ id }) => id).join(', ')} ${changed.length === 1 ? 'was' : 'were'} made with other settings, data or version: make again with --force, or name another output_dir`,
      )
    for (const { id, state } of before) if (state === 'new') await checkUnused(join(outputDir, id))
    const rows: StageRow[] = []
    for (const [i, stage] of stages.entries()) {
      const { id, kind, from } = stage
      const folder = join(outputDir, id)
      const { state } = before[i]!
      const key = keys.get(id)!
      onEvent({ type: 'stage', id, number: i + 1, total: stages.length, state })
      if (state === 'done') {
        rows.push(before[i]!)
        continue
      }
      if (state === 'changed') await rm(folder, { recursive: true })
      await makeFolder(folder)
      const earlier = state === 'interrupted' ? ((await readStage(folder))?.seconds ?? 0) : 0
      const write = (file: Omit<StageFile, 'format' | 'key'>) =>
        writeTextAtomically(join(folder, stageFile), `${JSON.stringify({ format: 1, key, ...file }, null, 2)}\n`)
      await write({ done: false, seconds: earlier, outcome: undefined })
      const startedAt = performance.now()
      const secondsNow = () => earlier + (performance.now() - startedAt) / 1000
      let outcome: Outcome
      try {
        outcome = await stageKinds[kind].run(stage.settings, {
          ...{ folder, model: modelBefore(plan, from, rows), base: plan.model, threads: plan.threads, command },
          from: from === undefined ? undefined : join(outputDir, from),
          // A training that has saved its recipe goes on; what else there is is made anew.
          resume: await exists(join(folder, 'recipe.yaml')),
          ...{ signal, onEvent },
        })
        signal?.throwIfAborted()
      } catch (error) {
        await write({ done: false, seconds: secondsNow(), outcome: undefined })
        if (signal?.aborted) return await finish('interrupted')
        throw error
      }
      const file = { done: !outcome.interrupted, seconds: secondsNow(), outcome }
      await write(file)
      if (outcome.interrupted) return await finish('interrupted')
      rows.push(await rowOf(plan, stage, state, { format: 1, key, ...file }))
      if (kind === 'eval' && from !== undefined) await addScores(join(outputDir, from, 'model'), outcome.figures, stage)
    }
    return await finish('completed')

    async function finish(status: PipelineResult['status']): Promise<PipelineResult> {
      const model = rows.filter((row) => row.model !== undefined).at(-1)?.model
      const result = { status, outputDir, rows, model }
      await writeTextAtomically(join(outputDir, 'pipeline.json'), `${JSON.stringify(result, null, 2)}\n`)
      return result
    }
  } finally {
    await unlock()
    if (isNew) await removeIfEmpty(outputDir)
  }
}

/** The key of each stage: a hash of its kind and settings, of the data that it reads, and of what it takes. */
async function keysOf(plan: PipelinePlan): Promise<Map<string, string>> {
  const keys = new Map<string, string>()
  const base = (await exists(plan.model)) ? await hashModel(plan.model) : plan.model
  const hashes = new Map<string, string[]>()
  for (const { id, kind, from, settings, paths } of plan.stages) {
    for (const path of paths)
      if (!hashes.has(path))
        hashes.set(
          path,
          (await hashData([path])).map(({ sha256 }) => sha256),
        )
    // What only accounts and cards say changes no weight.
    const { cost: _cost, card: _card, ...own } = settings
    const input = from === undefined ? base : keys.get(from)
    const data = paths.map((path) => hashes.get(path))
    const text = canonicalJson({ kind, settings: own, data, input, base, version: packageVersion() })
    keys.set(id, createHash('sha256').update(text).digest('hex'))
  }
  return keys
}

async function readStage(folder: string): Promise<StageFile | undefined> {
  const path = join(folder, stageFile)
  if (!(await exists(path))) return undefined
  const file = await readJsonObject(path)
  const { format, key, done, seconds, outcome } = file
  if (
    format !== 1 ||
    typeof key !== 'string' ||
    typeof done !== 'boolean' ||
    typeof seconds !== 'number' ||
    (done && !(isRecord(outcome) && isRecord(outcome.figures)))
  )
    throw new UserError(
      `${path}: is no state of a stage of this version; delete the folder, and the stage is made again`,
    )
  return file as unknown as StageFile
}

/** Throws where a stage that has not run would write into a folder with something else in it. */
async function checkUnused(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => [])
  if (names.length > 0)
    throw new UserError(`${folder}: holds ${names[0]}, which is of no stage of this pipeline: name another output_dir`)
}

/** The model that a stage takes: that of the stage `from`, else the pipeline's. */
const modelBefore = (plan: PipelinePlan, from: string | undefined, rows: readonly StageRow[]): string =>
  rows.find(({ id }) => id === from)?.model ?? plan.model

async function rowOf(
  { model, outputDir }: PipelinePlan,
  { id, kind, from, settings }: PlannedStage,
  state: StageState,
  file: StageFile | undefined,
): Promise<StageRow> {
  const row = { id, kind, state, from: from ?? model, settings }
  if (!file) return row
  const record = file.outcome?.figures.tokens === undefined ? undefined : await readRecord(join(outputDir, id, 'model'))
  return {
    ...row,
    ...file.outcome?.figures,
    model: file.outcome?.model,
    seconds: file.seconds,
    account: record?.account,
  }
}

/** Writes what was measured into the card of a model that the pipeline has made. */
async function addScores(model: string, figures: Figures, { id, settings }: PlannedStage): Promise<void> {
  const record = await readRecord(model).catch(() => undefined)
  if (!record) return
  const { score, tokensPerForward, tokensPerSecond, bitsPerByte } = figures
  const value = [
    ...(bitsPerByte === undefined ? [] : [`${bitsPerByte.toFixed(3)} bits per byte`]),
    ...(score === undefined ? [] : [`${(100 * score).toFixed(1)} %`]),
    ...(tokensPerForward === undefined ? [] : [`${tokensPerForward.toFixed(2)} tokens per forward`]),
    ...(tokensPerSecond === undefined ? [] : [`${tokensPerSecond.toFixed(0)} tokens/s`]),
  ].join(', ')
  const scores = [
    ...record.scores.filter(({ name }) => name !== id),
    { name: id, value, settings: JSON.stringify(publishableSettings(settings)) },
  ]
  await writeCard(
    model,
    { ...record, scores },
    { config: (await readModelJson(join(model, 'config.json'))) as ModelConfig },
  )
}
