// From files to a model that can be served: data checked, cleaned and split, as many tokens as the time allows, training that
// stops where held-out text gets no better, and the model measured before and after. It composes jobs.
import { join } from 'node:path'
import { readRecord } from '../account/record.ts'
import { exists, makeFolder, readJsonObject, removeIfEmpty, writeTextAtomically } from '../checkpoint/file.ts'
import { lockFolder } from '../checkpoint/lock.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import { objectiveOf } from '../objectives/index.ts'
import type { Evaluation } from '../train/types.ts'
import { type AdaptData, prepareData } from './adapt-data.ts'
import { columnsOf } from './before-training.ts'
import { type ConvertEvent, convert } from './convert.ts'
import { evaluate } from './evaluate.ts'
import { parseRecipe, type Recipe } from './recipe.ts'
import { writeCard } from './save-trained.ts'
import { modelConfig } from './sft.ts'
import { parseSftRecipe } from './sft-recipe.ts'

export interface AdaptOptions {
  /**
   * Settings of a recipe as a person writes them: `model`, `output_dir`, `data.train_path` and whatever is to differ from what
   * `adaptRecipe` chooses.
   */
  recipe: Record<string, unknown>
  /** Files whose rows must not be trained on. */
  evaluationSets: readonly string[]
  /** Text of no special field: what the model forgets is measured on it. */
  general: readonly string[]
  /** Seconds that training may take; it chooses the number of tokens. Default: `train.total_tokens`. */
  budget?: number
  /** Jaccard index from which two texts are nearly the same. Default 0.8. */
  similarity?: number
  resume?: boolean
  command?: string
  signal?: AbortSignal
  onEvent?: (event: AdaptEvent) => void
}

export type AdaptEvent = ConvertEvent | { type: 'data'; data: AdaptData }

/** Held-out text under the model as it was and as it is. */
export interface BeforeAfter {
  before: Evaluation
  after: Evaluation
}

export interface AdaptResult {
  status: 'completed' | 'interrupted'
  data: AdaptData
  objective: Recipe['objective']
  /** Training tokens that were planned, and that were seen. */
  plannedTokens: number
  tokens: number
  /** Tokens per second that the plan was made with; undefined without a budget. */
  measuredSpeed: number | undefined
  /** Ready for `unmask serve`; undefined where the run was interrupted. */
  model: string | undefined
  /** The company's own held-out rows, and general text; undefined where the run was interrupted. */
  own: BeforeAfter | undefined
  general: BeforeAfter | undefined
}

/** Share of the budget that goes into training; the rest is for loading, validation and checkpoints. */
const TRAINING_SHARE = 0.8
/** Checkpoints of a run, so many without a better one end it. */
const CHECKPOINTS = 12
const PATIENCE = 3

/** Throws UserError where the data are not good enough (`prepareData`), and as `convert` does. */
export async function adapt(options: AdaptOptions): Promise<AdaptResult> {
  const { output_dir: folder } = options.recipe
  if (typeof folder !== 'string' || folder === '') throw new UserError('--output-dir: is required')
  const isNew = await makeFolder(folder)
  const unlock = await lockFolder(folder)
  try {
    return await adaptInFolder(folder, options)
  } finally {
    await unlock()
    if (isNew) await removeIfEmpty(folder)
  }
}

async function adaptInFolder(folder: string, options: AdaptOptions): Promise<AdaptResult> {
  const { evaluationSets, general, budget, similarity = 0.8, signal, onEvent = () => undefined } = options
  const resume = options.resume ?? false
  const run = join(folder, 'run')
  const planFile = join(folder, 'plan.json')
  if ((await exists(planFile)) !== resume)
    throw new UserError(
      resume
        ? `${folder}: no adaptation to resume; leave out --resume`
        : `${folder}: holds an adaptation already; go on with --resume, or name another folder`,
    )
  const phase = (message: string) => onEvent({ type: 'phase', message })
  const named = parseRecipe({ ...options.recipe, output_dir: run })
  phase('checking the data')
  const data = await prepareData({
    data: named.data.train_path.map((entry) => (typeof entry === 'string' ? entry : entry.path)),
    evaluationSets: [...evaluationSets, ...general],
    columns: columnsOf(named.data),
    validationFraction: named.data.validation_fraction,
    similarity,
    folder: join(folder, 'data'),
  })
  onEvent({ type: 'data', data })
  const config = await modelConfig(named.model, signal)
  const given = withData(options.recipe, data, run)

  let plan: Plan
  if (resume) plan = (await readJsonObject(planFile)) as unknown as Plan
  else {
    const speed = budget === undefined ? undefined : await measureSpeed(adaptRecipe(given, config), folder, options)
    if (signal?.aborted) signal.throwIfAborted()
    const tokens = speed === undefined ? named.train.total_tokens : Math.floor(speed * budget! * TRAINING_SHARE)
    plan = { tokens: Math.max(tokens, tokensOfStep(named)), speed }
    await writeTextAtomically(planFile, `${JSON.stringify(plan)}\n`)
  }
  const recipe = adaptRecipe(given, config, plan.tokens)
  phase(`training on ${plan.tokens} tokens`)
  const result = await convert({
    ...{ recipe, onEvent, command: options.command ?? 'unmask adapt' },
    resume: await exists(join(run, 'recipe.yaml')),
    ...(signal ? { signal } : {}),
  })
  const outcome = {
    ...{ data, objective: recipe.objective, plannedTokens: plan.tokens, tokens: result.tokens },
    measuredSpeed: plan.speed,
  }
  if (result.status === 'interrupted' || !result.model)
    return { ...outcome, status: 'interrupted', model: undefined, own: undefined, general: undefined }
  const measure = async (name: string, paths: readonly string[]): Promise<BeforeAfter> => {
    phase(`measuring ${name}, before and after`)
    const of = async (model: string) =>
      (await evaluate({
        ...{ model, data: paths, decode: recipe.decode, eval: { ...recipe.eval, tasks: [], prompts: 0 } },
        ...{
          dataTokens: recipe.data.validation_tokens,
          length: recipe.data.max_seq_len,
          threads: recipe.threads,
          onEvent,
        },
        ...(recipe.data.template ? { template: recipe.data.template } : {}),
        ...(signal ? { signal } : {}),
      }))!.likelihood!
    return { before: await of(recipe.model), after: await of(result.model!) }
  }
  const own = await measure('held-out rows of the data', [data.validation])
  const forgotten = await measure('general text', general)
  const finished: AdaptResult = { ...outcome, status: 'completed', model: result.model, own, general: forgotten }
  await writeTextAtomically(join(folder, 'adapt.json'), `${JSON.stringify(finished, null, 2)}\n`)
  await addToCard(result.model, finished)
  return finished
}

interface Plan {
  tokens: number
  speed: number | undefined
}

const section = (value: unknown): Record<string, unknown> => (value ?? {}) as Record<string, unknown>

const withData = (recipe: Record<string, unknown>, data: AdaptData, run: string) => ({
  ...recipe,
  output_dir: run,
  data: { ...section(recipe.data), train_path: [data.train], validation_path: [data.validation] },
})

/**
 * The recipe of an adaptation. An autoregressive model becomes one of objective `hybrid`, which keeps its likelihood and gains
 * drafts; any other is fine-tuned with the objective that it has. Checkpoints are looked at twelve times; three in a row
 * without a better one end the run. What the person says wins.
 */
export function adaptRecipe(given: Record<string, unknown>, config: ModelConfig, totalTokens?: number): Recipe {
  const isAr = objectiveOf(config) === 'ar'
  const batch = parseRecipe(given)
  const tokens = totalTokens ?? batch.train.total_tokens
  const every = Math.max(1, Math.floor(tokens / tokensOfStep(batch) / CHECKPOINTS))
  const train = {
    ...{ save_steps: every, eval_steps: every, early_stop: PATIENCE, keep_best: 1 },
    ...(isAr ? { lr: batch.lora.rank > 0 ? 3e-3 : 3e-4 } : batch.lora.rank > 0 ? { lr: 1e-3 } : {}),
    ...section(given.train),
    total_tokens: tokens,
  }
  const value = { ...given, train }
  if (!isAr) return parseSftRecipe(value, config)
  return parseRecipe({ ...value, objective: 'hybrid', diffusion: { block_size: 8, ...section(given.diffusion) } })
}

const tokensOfStep = ({ train, data }: Pick<Recipe, 'train' | 'data'>): number =>
  train.global_batch_size * data.max_seq_len

/** Tokens per second of the last of a few steps, in a run that is deleted. */
async function measureSpeed(recipe: Recipe, folder: string, { signal, onEvent }: AdaptOptions): Promise<number> {
  onEvent?.({ type: 'phase', message: 'measuring the speed of training' })
  const { rm } = await import('node:fs/promises')
  const trial = join(folder, 'trial')
  let speed = 0
  try {
    await convert({
      recipe: {
        ...recipe,
        output_dir: trial,
        train: { ...recipe.train, total_tokens: 4 * tokensOfStep(recipe), save_steps: 0, eval_steps: 0, early_stop: 0 },
      },
      ...{ force: true, skipDecoding: true },
      ...(signal ? { signal } : {}),
      onEvent: (event) => {
        if (event.type === 'step') speed = event.tokensPerSecond
      },
    })
    return speed
  } finally {
    await rm(trial, { recursive: true, force: true })
  }
}

async function addToCard(model: string, { own, general, data }: AdaptResult): Promise<void> {
  const record = await readRecord(model)
  if (!record || !own || !general) return
  const bits = ({ before, after }: BeforeAfter) =>
    `${before.bitsPerByte.toFixed(3)} before, ${after.bitsPerByte.toFixed(3)} after`
  const scores = [
    ...record.scores,
    {
      name: 'bits per byte, own held-out rows',
      value: bits(own),
      settings: `${own.after.tokens} tokens; ${data.rows.leaks} rows of evaluation sets left out of the data`,
    },
    { name: 'bits per byte, general text', value: bits(general), settings: `${general.after.tokens} tokens` },
  ]
  const config = (await readJsonObject(join(model, 'config.json'))) as ModelConfig
  await writeCard(model, { ...record, scores }, { config })
}
