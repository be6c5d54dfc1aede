// Finds how a model decodes best on this machine: measures forwards by their rows, then strategies, thresholds, block sizes and
// buffers, or drafts of a model that checks itself, on held-out prompts, all in turn, so that a machine that gets slower slows all alike. It composes the layers.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { exists, readJsonObject, writeTextAtomically } from '../checkpoint/file.ts'
import { type InferenceModel, loadForInference } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import { type Device, UserError } from '../core/types.ts'
import { checkRows } from '../data/index.ts'
import { createForward } from '../decode/forward.ts'
import {
  type DecodingSettings,
  type StrategyName,
  settingDefault,
  settingNames,
  settingRow,
  settingsToConfig,
  strategyReads,
} from '../decode/index.ts'
import { accuracyUnderParallelism, paretoFront } from '../eval/aup.ts'
import { type Calibration, calibrateConfidence } from '../eval/confidence-calibration.ts'
import { type Decode, type Output, type Prompt, summarize } from '../eval/decoding.ts'
import type { DecodingSummary } from '../eval/report/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { written } from '../text/assemble.ts'
import { createGenerator } from '../text/generator.ts'
import { evaluationPrompts, wholeFiles } from './evaluate.ts'
import type { Recipe } from './recipe.ts'

export interface TuneOptions {
  /** A diffusion model; see `load`. */
  model: string
  /** The autoregressive model that it came from: its score is the one to keep, its speed the one to beat. */
  base?: string
  /** Held-out text for prompts, where there are no tasks with answers. */
  data?: readonly string[]
  eval: Recipe['eval']
  /** Default: that of the table of settings. */
  maxNewTokens?: number
  /** Default: half, once and twice the model's own. */
  blockSizes?: readonly number[]
  strategies?: readonly StrategyName[]
  bufferSizes?: readonly number[]
  /** Also with committed rows reused. Default false. */
  reuse?: boolean
  /** Also with self-verification when at least these many tokens are expected to be accepted. Default: none. */
  selfVerify?: readonly number[]
  /** Calibrates confidences first, and decodes with them. Default false. */
  calibrate?: boolean
  template?: 'none' | 'chat'
  separator?: string
  /** How far the score may be below the base's, or without one the best, as a share. Default 0.01. */
  tolerance?: number
  seed?: number
  threads?: number
  /** Default `cpu`. */
  device?: Device
  signal?: AbortSignal
  onEvent?: (event: TuneEvent) => void
}

export type TuneEvent =
  | { type: 'phase'; message: string }
  /** Generations, done and in all. */
  | { type: 'progress'; done: number; total: number; secondsLeft: number }

/** What one way of decoding came to. */
export interface TunedRow extends DecodingSummary {
  settings: DecodingSettings
  /** Tokens per second over the base's in the same run; undefined without a base. */
  speedup: number | undefined
}

export interface TuneResult {
  /** Milliseconds of a forward by its rows, all of them predicted, against an empty cache. */
  forwards: { rows: number; milliseconds: number }[]
  /** Undefined where it was not asked for. */
  calibration: Calibration | undefined
  base: DecodingSummary | undefined
  rows: TunedRow[]
  /** Indices of rows that none beats in both tokens per second and score, by speed. Empty without tasks. */
  front: number[]
  /** AUP of each strategy with one block size and buffer, over its thresholds. Empty without tasks. */
  aup: { strategy: StrategyName; blockSize: number; bufferSize: number; aup: number }[]
  /** Index of the fastest row within the tolerance, else of the best score; without tasks the fastest at the default threshold. */
  chosen: number
  /** Whether its score is within the tolerance; undefined without tasks. */
  keepsScore?: boolean
}

const ROWS = [1, 2, 4, 8, 16, 32, 64]
/** The ways to set a strategy that are tried: every combination of the values that the table of settings names. */
const rulesOf = (strategy: StrategyName): DecodingSettings[] =>
  settingNames
    .filter((name) => strategyReads(strategy, name))
    .reduce<DecodingSettings[]>(
      (rules, name) => {
        const { tried } = settingRow(name)
        return tried ? rules.flatMap((rule) => tried.map((value) => ({ ...rule, [name]: value }))) : rules
      },
      [{}],
    )

/** Measures; throws UserError where there is nothing to measure with. */
export async function tune(options: TuneOptions): Promise<TuneResult> {
  const { signal, onEvent = () => undefined, seed = 0 } = options
  const loading = signal ? { signal } : {}
  if (!options.data && options.eval.tasks.length === 0)
    throw new UserError('nothing to tune with: name tasks (--tasks) or held-out text (--data)')
  if (options.data) await checkRows({ paths: options.data })
  onEvent({ type: 'phase', message: `loading ${options.model}` })
  const loaded = await loadForInference(options.model, loading)
  const { config } = loaded.model
  const checksItself = config.causal_context === true
  if (checksItself) checkDraftingOptions(options)
  if (typeof config.mask_token_id !== 'number')
    throw new UserError(
      `${options.model}: is autoregressive (no mask_token_id in config.json); there is nothing to tune`,
    )
  const base = options.base === undefined ? undefined : await loadForInference(options.base, loading)
  const executor = createExecutor({ threads: options.threads, device: options.device })
  try {
    onEvent({ type: 'phase', message: 'measuring forwards' })
    const forwards = await measureForwards(executor, loaded, signal)
    const blockSize = typeof config.block_size === 'number' ? config.block_size : 32
    const documents = options.data && wholeFiles(options.data, loaded, { ...options, blockSize, seed })
    const prompts = await evaluationPrompts(options.eval, loaded, { ...options, documents, seed })
    if (prompts.length === 0) throw new UserError('the held-out text gives no prompts: it is too short')
    if (options.calibrate) onEvent({ type: 'phase', message: 'calibrating confidences' })
    const calibration = options.calibrate
      ? await calibrateConfidence(executor, loaded, prompts.map(answered(loaded)), { blockSize, seed, ...loading })
      : undefined
    onEvent({ type: 'phase', message: `decoding ${prompts.length} prompts` })
    const scale = calibration && { logitScale: calibration.scale }
    const tried = checksItself ? draftingWays(blockSize, rowCost(forwards)) : waysOf(options, blockSize)
    const ways = tried.map((way) => ({ ...way, ...scale }))
    const { ar, outputs } = await decodeAll(executor, loaded, base, { ...options, prompts, ways, seed })
    return {
      forwards,
      calibration,
      ...choose(ways, outputs.map(summarize), ar && summarize(ar), options.tolerance ?? 0.01),
    }
  } finally {
    await executor.dispose()
  }
}

/**
 * Checks that `writeTuned` may write: the model is a folder, and has no settings of an earlier choice unless `force` is set.
 * Throws UserError otherwise.
 */
export async function checkTunable(model: string, { force = false }: { force?: boolean } = {}): Promise<void> {
  const path = await generationConfigPath(model)
  const config = (await exists(path)) ? await readJsonObject(path) : {}
  const written = Object.keys(config).filter((key) => !(key in withoutTuned(config)))
  if (written.length > 0 && !force)
    throw new UserError(`${path}: has decoding settings already (${written.join(', ')}); replace them with --force`)
}

/** Writes settings into the generation_config.json of a model folder, where `generate` finds them. */
export async function writeTuned(model: string, settings: DecodingSettings): Promise<string> {
  const path = await generationConfigPath(model)
  const config = (await exists(path)) ? await readJsonObject(path) : {}
  const merged = { ...config, ...settingsToConfig(settings) }
  const kept = Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null))
  await writeTextAtomically(path, `${JSON.stringify(kept, null, 2)}\n`)
  return path
}

async function generationConfigPath(model: string): Promise<string> {
  if (!(await stat(model).catch(() => undefined))?.isDirectory())
    throw new UserError(`${model}: not a model folder: settings can be written into one only`)
  return join(model, 'generation_config.json')
}

function withoutTuned(config: Record<string, unknown> = {}): Record<string, unknown> {
  const tuned = new Set(Object.keys(settingsToConfig({})))
  return Object.fromEntries(Object.entries(config).filter(([key]) => !tuned.has(key)))
}

/** A prompt with its answer behind it, as training saw them. */
const answered =
  ({ tokenizer }: InferenceModel) =>
  ({ ids, expected = '' }: Prompt) => {
    const answer = tokenizer.encode(expected, { special: 'text', continues: true })
    const end = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId]
    return { ids: [...ids, ...answer, ...end], start: ids.length }
  }

/** Options that choose between ways of decoding blocks, which a model that checks its own drafts does not have. */
const BLOCK_OPTIONS = ['blockSizes', 'bufferSizes', 'strategies', 'reuse', 'selfVerify', 'calibrate'] as const

function checkDraftingOptions(options: TuneOptions): void {
  const given = BLOCK_OPTIONS.filter((name) => options[name] !== undefined && options[name] !== false)
  if (given.length > 0)
    throw new UserError(
      `${options.model}: was trained with objective hybrid and checks its own drafts; settings of objective diffusion are not for it: ${given.join(', ')}`,
    )
}

/** Mode speculative, which writes the text of mode ar: numbers of masks, with drafts from earlier text and without. */
function draftingWays(most: number, rowCost: number): DecodingSettings[] {
  const counts = [2, 4, 8, 16, 32].filter((count) => count < most).concat(most)
  return counts.flatMap((masks) =>
    (settingRow('lookup').tried as readonly number[]).map(
      (lookup): DecodingSettings => ({ mode: 'speculative', masks, rowCost, lookup }),
    ),
  )
}

/** Most positions of a forward that drafts and masks fill. */
const MOST_DRAFTED = 32

/** What was measured of few positions says nothing of hundreds, which drafts that cost nothing would take. */
const LEAST_ROW_COST = 0.005

/** Time of one more position in a forward, as a share of a forward of one: the slope of a line through that, by least squares. */
export function rowCost(forwards: TuneResult['forwards']): number {
  const [one] = forwards as [TuneResult['forwards'][number]]
  const more = forwards.filter(({ rows }) => rows > 1 && rows <= MOST_DRAFTED)
  const sum = (of: (x: number, y: number) => number) =>
    more.reduce((total, { rows, milliseconds }) => total + of(rows - 1, milliseconds / one.milliseconds - 1), 0)
  const slope = sum((x, y) => x * y) / sum((x) => x * x)
  return Number(Math.min(1, Math.max(LEAST_ROW_COST, slope)).toPrecision(2))
}

function waysOf(options: TuneOptions, own: number): DecodingSettings[] {
  const { strategies = ['threshold', 'hierarchy', 'factor'], bufferSizes = [1, 2] } = options
  const sizes = options.blockSizes ?? [...new Set([Math.max(1, Math.floor(own / 2)), own, 2 * own])]
  const extras: Partial<DecodingSettings>[] = [{}, ...(options.reuse ? [{ reuse: true }] : [])]
  const verifying = (options.selfVerify ?? []).map((selfVerify) => ({ selfVerify }))
  return strategies.flatMap((strategy) =>
    rulesOf(strategy).flatMap((rule) =>
      sizes.flatMap((blockSize) =>
        bufferSizes.flatMap((bufferSize) =>
          (strategy === 'edit' || strategy === 'soft' ? [{}] : [...extras, ...(bufferSize === 1 ? verifying : [])]).map(
            (extra) => ({
              ...{ blockSize, strategy, ...rule, bufferSize, ...extra },
            }),
          ),
        ),
      ),
    ),
  )
}

/**
 * Prompts that a way decodes before it is another's turn: the base is a session with threads of its own, and those of the
 * session before go on spinning for a while, which would slow the one that most often follows another, the base.
 */
const IN_A_ROW = 20

async function decodeAll(
  executor: Executor,
  loaded: InferenceModel,
  base: InferenceModel | undefined,
  options: TuneOptions & { prompts: readonly Prompt[]; ways: readonly DecodingSettings[]; seed: number },
): Promise<{ ar: Output[] | undefined; outputs: Output[][] }> {
  const { prompts, ways, maxNewTokens, signal, onEvent } = options
  const common = { maxNewTokens, signal }
  const ar = base && (await createGenerator(executor, base, { mode: 'ar' }))
  // What an earlier tuning wrote must not fill in for what a way leaves out.
  const plain = { ...loaded, generationConfig: withoutTuned(loaded.generationConfig) }
  const diffusion = await createGenerator(executor, plain, ways[0]?.mode ? {} : { mode: 'diffusion' })
  const runs: { outputs: Output[]; decode: Decode }[] = [
    ...ways.map((way) => ({
      outputs: [],
      decode: (ids: readonly number[]) => written(diffusion.write(ids, { ...common, ...way })),
    })),
    ...(ar ? [{ outputs: [], decode: (ids: readonly number[]) => written(ar.write(ids, common)) }] : []),
  ]
  const total = prompts.length * runs.length
  try {
    let done = 0
    const started = performance.now()
    for (let first = 0; first < prompts.length; first += IN_A_ROW) {
      const some = prompts.slice(first, first + IN_A_ROW)
      // Another order each time, so that none always follows the same one.
      for (const run of random(options.seed, 71, first).shuffle([...runs])) {
        for (const prompt of some) run.outputs.push({ ...(await run.decode(prompt.ids)), prompt })
        done += some.length
        const secondsLeft = ((performance.now() - started) / 1000 / done) * (total - done)
        onEvent?.({ type: 'progress', done, total, secondsLeft })
      }
    }
  } finally {
    await ar?.dispose()
    await diffusion.dispose()
  }
  const outputs = runs.slice(0, ways.length).map((run) => run.outputs)
  return { ar: ar && runs[ways.length].outputs, outputs }
}

function choose(
  ways: readonly DecodingSettings[],
  summaries: readonly DecodingSummary[],
  base: DecodingSummary | undefined,
  tolerance: number,
): Omit<TuneResult, 'forwards' | 'calibration'> {
  const rows = ways.map((settings, i) => ({
    settings,
    ...summaries[i],
    speedup: base && summaries[i].tokensPerSecond / base.tokensPerSecond,
  }))
  const scores = rows.map(({ score }) => score?.accuracy)
  const fastest = (indices: readonly number[]) =>
    indices.reduce((best, i) => (rows[i].tokensPerSecond > rows[best].tokensPerSecond ? i : best), indices[0])
  if (scores.some((score) => score === undefined)) {
    const usual = rows.flatMap(({ settings: { threshold = 0.9 } }, i) => (threshold === 0.9 ? [i] : []))
    return { base, rows, front: [], aup: [], chosen: fastest(usual.length > 0 ? usual : [...rows.keys()]) }
  }
  const known = scores as number[]
  const best = Math.max(...known, base?.score?.accuracy ?? 0)
  const wanted = (base?.score?.accuracy ?? best) - tolerance
  // A difference of scores is no exact number.
  const good = [...rows.keys()].filter((i) => known[i] >= wanted - 1e-9)
  const families = new Map<string, number[]>()
  for (const [i, { settings }] of rows.entries()) {
    const { mode, strategy, blockSize, bufferSize, reuse, selfVerify } = settings
    if (mode === 'speculative' || reuse || selfVerify !== undefined) continue
    const key = JSON.stringify({ strategy, blockSize, bufferSize })
    families.set(key, [...(families.get(key) ?? []), i])
  }
  return {
    base,
    rows,
    front: paretoFront(rows.map(({ tokensPerSecond }, i) => ({ speed: tokensPerSecond, score: known[i] }))),
    aup: [...families].map(([key, indices]) => ({
      ...JSON.parse(key),
      aup: accuracyUnderParallelism(
        indices.map((i) => ({ tpf: rows[i].tokensPerForward, score: known[i] })),
        best,
      ),
    })),
    chosen: fastest(good.length > 0 ? good : [...rows.keys()].filter((i) => known[i] === Math.max(...known))),
    keepsScore: good.length > 0,
  }
}

/** Median milliseconds of a forward, by its rows. */
async function measureForwards(
  executor: Executor,
  { model, parameters }: InferenceModel,
  signal: AbortSignal | undefined,
): Promise<TuneResult['forwards']> {
  const forward = await createForward(executor, model, parameters, [])
  const cache = forward.createCache()
  const draw = random(0)
  const times = ROWS.map((): number[] => [])
  try {
    for (let round = 0; round < 8; round++)
      for (const [i, rows] of ROWS.entries()) {
        const ids = Array.from({ length: rows }, () => draw.integer(model.dimensions.vocabSize))
        const start = performance.now()
        const all = ids.map((_, row) => row)
        await forward.run(cache, { ids, blockSize: rows, rows: all, store: 0, signal })
        if (round > 0) times[i].push(performance.now() - start)
      }
  } finally {
    await cache.free()
    await forward.dispose()
  }
  const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]
  return ROWS.map((rows, i) => ({ rows, milliseconds: median(times[i]) }))
}

/** The name of a way of decoding, for tables: `threshold 0.9, block 16, buffer 2`. */
export function wayName(settings: DecodingSettings): string {
  if (settings.mode === 'speculative')
    return `${settings.masks} masks, ${settings.lookup ? 'earlier text too' : 'no earlier text'}, row cost ${settings.rowCost}`
  const { strategy = settingDefault('strategy') } = settings
  const own = settingNames.find((name) => settingRow(name).tried && strategyReads(strategy, name))
  const parts = [
    own ? `${strategy} ${settings[own] ?? ''}` : strategy,
    `block ${settings.blockSize}`,
    `buffer ${settings.bufferSize}`,
    settings.reuse && 'reuse',
    settings.selfVerify !== undefined && `self-verify ${settings.selfVerify}`,
  ]
  return parts.filter(Boolean).join(', ')
}
