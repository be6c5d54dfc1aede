// The stages of a pipeline, one entry each: its settings, what contradicts what comes before it, and the job that it calls.
// A job's module is loaded when its stage runs.
import { copyFile, link, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { writeTextAtomically } from '../checkpoint/file.ts'
import { makeCheckpointFolder } from '../checkpoint/index.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import type { ComparisonResult } from '../eval/compare.ts'
import type { DecodingSummary } from '../eval/report/types.ts'
import { check } from '../formats/check.ts'
import { objectiveOf } from '../objectives/index.ts'
import type { Evaluation } from '../train/types.ts'
import { filePaths } from './before-training.ts'
import type { ConvertEvent, ConvertResult } from './convert.ts'
import type { DpoEvent } from './dpo.ts'
import { parsePreferenceRecipe } from './dpo-recipe.ts'
import type { QuantizeEvent } from './quantize.ts'
import { type Origin, oneOrMore, parseRecipe, parseSections, path, problemLines, type Recipe, whole } from './recipe.ts'
import { parseSftRecipe } from './sft-recipe.ts'
import type { TuneEvent } from './tune.ts'

/** What is known of a model before it is made. */
export interface Known {
  /** As far as it says what the model is; undefined where only fetching it would tell. */
  config: ModelConfig | undefined
  /** What has rounded its weights. */
  rounded: string | undefined
  /** The training that made it. */
  run: { keepBest: number; saves: boolean; lowRank: boolean } | undefined
}

interface Planning {
  known: Known
  /** Says where a setting was given. */
  origin: Origin
  /** Where the stage stands, as paths and for people. */
  path: string
  at: string
}

interface Planned {
  settings: Record<string, unknown>
  paths: string[]
  /** The model that it makes; undefined where it makes none. */
  after: Known | undefined
}

export interface StageContext {
  /** Folder of the stage. */
  folder: string
  /** Model that it takes. */
  model: string
  /** Folder of the stage that made that; undefined for the pipeline's own model. */
  from: string | undefined
  /** The pipeline's model. */
  base: string
  /** Continue what the folder holds of it. */
  resume: boolean
  threads: number
  command: string
  signal: AbortSignal | undefined
  onEvent(event: StageEvent): void
}

export type StageEvent = ConvertEvent | DpoEvent | QuantizeEvent | TuneEvent

/** Figures of a stage; those that it did not measure are undefined. */
export interface Figures {
  score?: number | undefined
  tokensPerForward?: number | undefined
  tokensPerSecond?: number | undefined
  bitsPerByte?: number | undefined
  /** Training tokens. */
  tokens?: number | undefined
}

export interface Outcome {
  /** Model for the stages after it. */
  model?: string | undefined
  figures: Figures
  interrupted?: boolean
}

interface StageKind {
  description: string
  /** Sections at the top of the recipe that it takes. */
  shares: readonly string[]
  /** Checks settings. Throws UserError that names the key. */
  plan(settings: Record<string, unknown>, planning: Planning): Planned | Promise<Planned>
  // biome-ignore lint/suspicious/noExplicitAny: what plan returned, as plain JSON
  run(settings: any, context: StageContext): Promise<Outcome>
}

const training = ['data', 'train', 'decode', 'eval', 'cost', 'card', 'seed']

/** Filled in when a stage runs. */
const PLACES = { model: '-', output_dir: '-' }

const withoutPlaces = ({
  model: _m,
  output_dir: _o,
  threads: _t,
  ...settings
}: Record<string, unknown>): Record<string, unknown> => settings

function fail(origin: Origin, key: string, message: string): never {
  throw new UserError(`${origin(key)}: ${message}`)
}

/** Checks settings by a schema. */
function checked<S extends z.ZodType>(schema: S, value: unknown, origin: Origin): z.output<S> {
  const result = check(schema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin, schema).join('\n'))
  return result.data
}

function planTraining(recipe: Recipe, { known, origin }: Planning): Planned {
  if (known.rounded !== undefined && recipe.lora.rank === 0)
    fail(
      origin,
      'lora.rank',
      `0 trains all weights, but ${known.rounded} has rounded them: give a rank, or quantise last`,
    )
  const { block_size, same_token_labels } = recipe.diffusion
  const kind = known.config?.model_type ?? ''
  const of = { mask_token_id: 0, block_size, same_token_labels }
  const config: ModelConfig =
    recipe.objective === 'ar'
      ? { model_type: kind }
      : { model_type: kind, ...of, ...(recipe.objective === 'hybrid' ? { causal_context: true } : {}) }
  const { keep_best: keepBest, save_steps: saveSteps } = recipe.train
  return {
    settings: withoutPlaces(recipe),
    paths: [...filePaths(recipe.data.train_path), ...(recipe.data.validation_path ?? [])],
    after: { config, rounded: undefined, run: { keepBest, saves: saveSteps > 0, lowRank: recipe.lora.rank > 0 } },
  }
}

function planSft(settings: Record<string, unknown>, planning: Planning): Planned {
  const { known, origin } = planning
  if (known.config === undefined)
    fail(
      origin,
      'objective',
      'is that of the model, which is not on this machine: fetch it with unmask pull and give its folder, or convert it first',
    )
  return planTraining(parseSftRecipe({ ...settings, ...PLACES }, known.config, origin), planning)
}

async function runSft(settings: object, context: StageContext): Promise<Outcome> {
  const { sft } = await import('./sft.ts')
  return trained(await sft(trainingOptions(settings, context)), context)
}

const trainingOptions = (settings: object, { folder, model, threads, ...context }: StageContext) => ({
  recipe: { ...settings, model, output_dir: folder, threads } as Recipe,
  ...{ resume: context.resume, command: context.command, onEvent: context.onEvent },
  ...(context.signal ? { signal: context.signal } : {}),
})

const trained = (result: ConvertResult, { folder }: StageContext): Outcome => ({
  model: join(folder, 'model'),
  figures: { ...figuresOf(result.comparison, result.evaluation), tokens: result.tokens },
  interrupted: result.status === 'interrupted',
})

function figuresOf(comparison: ComparisonResult | undefined, likelihood: Evaluation | undefined): Figures {
  const summary = comparison?.diffusion ?? comparison?.ar
  return { ...(summary ? decoded(summary) : {}), bitsPerByte: likelihood?.bitsPerByte }
}

const decoded = ({ score, tokensPerForward, tokensPerSecond }: DecodingSummary): Figures => ({
  ...{ score: score?.accuracy, tokensPerForward, tokensPerSecond },
})

const quantizeSettings = z.strictObject({
  bits: z.union([z.literal(4), z.literal(8)]).default(4),
  group_size: whole.optional(),
  symmetric: z.boolean().optional(),
  offsets: z.boolean().optional(),
  activations: z.literal(8).optional(),
  method: z.enum(['rtn', 'gptq']).default('rtn'),
  calibration: oneOrMore(path).optional(),
  calibration_tokens: whole.optional(),
  sequential: z.boolean().optional(),
  template: z.enum(['none', 'chat']).optional(),
})

const mergeSettings = z.strictObject({
  best: whole.optional(),
  dtype: z.enum(['F32', 'F16', 'BF16']).optional(),
  bits: z.union([z.literal(4), z.literal(8)]).optional(),
})

const measuring = z.strictObject({
  data: oneOrMore(path).optional(),
  template: z.enum(['none', 'chat']).optional(),
  base: z.boolean().default(true),
  seed: z.int().min(0).default(0),
  decode: z.unknown().optional(),
  eval: z.unknown().optional(),
})

const evalSettings = measuring.extend({ data_tokens: whole.optional(), block_size: whole.optional() })

const tuneSettings = measuring.extend({
  block_sizes: z.array(whole).min(1).optional(),
  buffer_sizes: z.array(whole).min(1).optional(),
  reuse: z.boolean().optional(),
  calibrate: z.boolean().optional(),
  tolerance: z.number().min(0).max(1).optional(),
})

/** Settings of a stage that measures, its sections filled in. */
function planMeasuring(schema: typeof evalSettings | typeof tuneSettings, settings: unknown, { origin, at }: Planning) {
  const { decode = {}, eval: evaluation = {}, ...own } = checked(schema, settings, origin)
  const sections = parseSections({ decode, eval: evaluation }, origin)
  if (!own.data && sections.eval.tasks.length === 0)
    throw new UserError(`${at}: nothing to measure with: give data, or eval.tasks`)
  return { settings: { ...own, ...sections }, paths: own.data ?? [] }
}

export const stageKinds = {
  pull: {
    description: 'fetches the model of the pipeline',
    shares: [],
    plan: (settings, { known, origin }) => ({
      settings: checked(z.strictObject({}), settings, origin),
      paths: [],
      after: known,
    }),
    async run(_settings, { model, signal }) {
      const { pull } = await import('../checkpoint/index.ts')
      return { model: (await pull(model, signal ? { signal } : {})).path, figures: {} }
    },
  },
  convert: {
    description: 'what unmask convert does',
    shares: training,
    plan: (settings, planning) => planTraining(parseRecipe({ ...settings, ...PLACES }, planning.origin), planning),
    async run(settings, context) {
      const { convert } = await import('./convert.ts')
      return trained(await convert(trainingOptions(settings, context)), context)
    },
  },
  sft: {
    description: 'what unmask sft does',
    shares: training,
    plan: planSft,
    run: runSft,
  },
  cap: {
    description: 'sft with confidence_beta, 2 unless it says otherwise',
    shares: training,
    plan(settings, planning) {
      if (planning.known.config && objectiveOf(planning.known.config) === 'ar')
        fail(
          planning.origin,
          'objective',
          'confidence-aware training is of masks, and the model is autoregressive: convert it first',
        )
      const { diffusion = {} } = settings
      const { confidence_beta: beta = 2, ...others } = checked(
        z.record(z.string(), z.unknown()),
        diffusion,
        planning.origin,
      )
      if (beta === 0) fail(planning.origin, 'diffusion.confidence_beta', '0 makes this sft: call it so, or raise it')
      return planSft({ ...settings, diffusion: { ...others, confidence_beta: beta } }, planning)
    },
    run: runSft,
  },
  dpo: {
    description: 'what unmask dpo does; its data are pairs of its own',
    shares: ['cost', 'card', 'seed'],
    plan(settings, { known, origin }) {
      const recipe = parsePreferenceRecipe({ ...settings, ...PLACES }, origin)
      if (known.rounded !== undefined && recipe.lora.rank === 0)
        fail(
          origin,
          'lora.rank',
          `0 trains all weights, but ${known.rounded} has rounded them: give a rank, or quantise last`,
        )
      return {
        settings: withoutPlaces(recipe),
        paths: [...recipe.data.train_path, ...(recipe.data.validation_path ?? [])],
        after: {
          ...known,
          rounded: undefined,
          run: { keepBest: recipe.train.keep_best, saves: recipe.train.save_steps > 0, lowRank: recipe.lora.rank > 0 },
        },
      }
    },
    async run(settings, { folder, model, threads, resume, command, signal, onEvent }) {
      const { dpo } = await import('./dpo.ts')
      const recipe = { ...settings, model, output_dir: folder, threads }
      const result = await dpo({ recipe, resume, command, onEvent, ...(signal ? { signal } : {}) })
      return {
        model: join(folder, 'model'),
        figures: { tokens: result.tokens, score: result.after?.metrics?.reward_accuracy },
        interrupted: result.status === 'interrupted',
      }
    },
  },
  merge: {
    description: 'means the best checkpoints of the training before it, or fuses its adapter',
    shares: [],
    plan(settings, { known, origin, at }) {
      const own = checked(mergeSettings, settings, origin)
      if (!known.run) throw new UserError(`${at}: merges what a training has left, and the stage that it takes is none`)
      const { lowRank, keepBest, saves } = known.run
      if (lowRank && own.best !== undefined) fail(origin, 'best', 'an adapter is merged alone: leave it out')
      if (lowRank && own.bits && own.dtype) fail(origin, 'dtype', 'a model in bits has no other type: give one')
      if (!lowRank && own.bits)
        fail(origin, 'bits', 'is for an adapter: quantise the mean of checkpoints in a stage of its own')
      const best = own.best ?? (lowRank ? undefined : Math.min(3, keepBest))
      if (best !== undefined && best > keepBest)
        fail(origin, 'best', `${best} checkpoints, but train.keep_best of the training is ${keepBest}`)
      if (best !== undefined && best > 1 && !saves)
        fail(
          origin,
          'best',
          `${best} checkpoints, but train.save_steps of the training is 0: it leaves the last one only`,
        )
      return {
        settings: { ...own, ...(best === undefined ? {} : { best }) },
        paths: [],
        after: { ...known, run: undefined, rounded: own.bits ? at : undefined },
      }
    },
    async run({ best, dtype, bits }, { folder, from, command, signal }) {
      const out = join(folder, 'model')
      if (best === undefined) {
        const { mergeAdapter } = await import('./merge-adapter.ts')
        await mergeAdapter({ adapter: join(from!, 'adapter'), out, dtype, bits, command, signal, force: true })
      } else {
        const { bestCheckpoints, mergeCheckpoints } = await import('../train/merge.ts')
        await mergeCheckpoints(await bestCheckpoints(from!, best), out, { dtype, command, force: true })
      }
      return { model: out, figures: {} }
    },
  },
  quantize: {
    description: 'what unmask quantize does',
    shares: [],
    plan(settings, { known, origin, at }) {
      const own = checked(quantizeSettings, settings, origin)
      if (known.rounded !== undefined) throw new UserError(`${at}: ${known.rounded} has rounded the weights already`)
      if ((own.method === 'gptq') !== (own.calibration !== undefined))
        fail(origin, 'calibration', 'method gptq needs text, and no other method takes it')
      if (own.activations && own.bits !== 8) fail(origin, 'activations', '8 needs bits: 8')
      return { settings: own, paths: own.calibration ?? [], after: { ...known, run: undefined, rounded: at } }
    },
    async run(settings, { folder, model, threads, command, signal, onEvent }) {
      const { quantize } = await import('./quantize.ts')
      const { group_size: groupSize, calibration_tokens: calibrationTokens, ...own } = settings
      const out = join(folder, 'model')
      const given = { ...own, ...(groupSize && { groupSize }), ...(calibrationTokens && { calibrationTokens }) }
      await quantize({ ...given, model, out, force: true, threads, command, onEvent, ...(signal ? { signal } : {}) })
      return { model: out, figures: {} }
    },
  },
  tune: {
    description: 'what unmask tune does: a copy of the model with the settings that decode fastest',
    shares: ['eval', 'decode'],
    plan(settings, planning) {
      const { known, at } = planning
      if (known.config && known.config.mask_token_id === undefined)
        throw new UserError(`${at}: the model is autoregressive; there is nothing to tune`)
      return { ...planMeasuring(tuneSettings, settings, planning), after: { ...known, run: undefined } }
    },
    async run(settings, { folder, model, base, threads, signal, onEvent }) {
      const { tune, writeTuned } = await import('./tune.ts')
      const { block_sizes: blockSizes, buffer_sizes: bufferSizes, base: withBase, decode, ...own } = settings
      const result = await tune({
        ...own,
        ...(blockSizes && { blockSizes }),
        ...(bufferSizes && { bufferSizes }),
        ...(withBase && base !== model && { base }),
        ...{ model, threads, onEvent, maxNewTokens: decode.max_new_tokens },
        ...(signal ? { signal } : {}),
      })
      const chosen = result.rows[result.chosen]!
      const out = join(folder, 'model')
      await makeCheckpointFolder(out, (temporary) => copyModel(model, temporary))
      await writeTuned(out, chosen.settings)
      return { model: out, figures: decoded(chosen) }
    },
  },
  eval: {
    description: 'what unmask eval does, beside the model of the pipeline',
    shares: ['eval', 'decode'],
    plan: (settings, planning) => ({ ...planMeasuring(evalSettings, settings, planning), after: undefined }),
    async run(settings, { folder, model, base, threads, signal, onEvent }) {
      const { evaluate } = await import('./evaluate.ts')
      const { data_tokens: dataTokens, block_size: blockSize, base: withBase, ...own } = settings
      const result = await evaluate({
        ...own,
        ...(dataTokens && { dataTokens }),
        ...(blockSize && { blockSize }),
        ...(withBase && base !== model && { base }),
        ...{ model, threads, onEvent },
        ...(signal ? { signal } : {}),
      })
      await writeTextAtomically(join(folder, 'result.json'), `${JSON.stringify(result, null, 2)}\n`)
      return { figures: figuresOf(result.comparison, result.likelihood) }
    },
  },
  export: {
    description: 'what unmask export does',
    shares: [],
    plan: (settings, { origin }) => ({
      settings: checked(z.strictObject({ to: z.enum(['onnx', 'web']).default('onnx') }), settings, origin),
      paths: [],
      after: undefined,
    }),
    async run({ to }, { folder, model, signal }) {
      const options = { model, out: join(folder, to), force: true, ...(signal ? { signal } : {}) }
      if (to === 'web') await (await import('./export-web.ts')).exportWeb(options)
      else await (await import('./export.ts')).exportModel(options)
      return { figures: {} }
    },
  },
} as const satisfies Record<string, StageKind>

export type StageName = keyof typeof stageKinds
export const stageNames = Object.keys(stageKinds) as StageName[]

/** The files of a model folder, weights as links where the disk allows it. */
async function copyModel(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (!entry.isFile() || entry.name.startsWith('.')) continue
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.name.endsWith('.safetensors')) await link(source, target).catch(() => copyFile(source, target))
    else await copyFile(source, target)
  }
}
