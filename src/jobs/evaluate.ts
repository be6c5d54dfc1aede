// Measures models: likelihood of held-out text, and decoding of held-out prompts against the base model.
// It composes data, trainer and decoder; the figures themselves are made in eval.
import { type Adapter, readAdapterConfig } from '../checkpoint/adapter.ts'
import { type InferenceModel, type LoadedModel, loadAdapterFor, loadForInference } from '../checkpoint/load.ts'
import { type Device, UserError } from '../core/types.ts'
import {
  checkRows,
  type DataOptions,
  type DataReport,
  type Document,
  describeReport,
  readDocuments,
  validationBatches,
} from '../data/index.ts'
import {
  type DecodingMode,
  modelDecoding,
  resolveSettings,
  settingsFromKeys,
  settingsOfMode,
  strategyReads,
} from '../decode/index.ts'
import { type ComparisonResult, compareDecoding } from '../eval/compare.ts'
import { type Decode, type Prompt, taskPrompts } from '../eval/decoding.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { written } from '../text/assemble.ts'
import { createGenerator, type Generator } from '../text/generator.ts'
import { documentStyle, promptIds } from '../text/prompt.ts'
import { textOf } from '../tokenizer/stream.ts'
import { createEvaluator } from '../train/evaluator.ts'
import type { Evaluation } from '../train/types.ts'
import type { Recipe } from './recipe.ts'

export type EvaluateEvent =
  | { type: 'phase'; message: string }
  | { type: 'decoding'; label: string; done: number; total: number }

export interface EvaluateOptions {
  /** Model to measure; see `load`. */
  model: string
  /** The autoregressive model that it came from, for comparison. */
  base?: string
  /** An adapter that drafts for the model, measured beside the model alone. */
  adapter?: string
  /** Held-out text: files, folders or globs, used whole. Without it no likelihood is measured. */
  data?: readonly string[]
  /** Most tokens of it. Default 16384. */
  dataTokens?: number
  /** Length of a packed row. Default 512, or the model's positions if those are fewer. */
  length?: number
  template?: 'none' | 'chat'
  separator?: string
  /** Default: the model's own (see `modelDecoding`). */
  blockSize?: number
  decode: Recipe['decode']
  eval: Recipe['eval']
  /** Seed of noise draws and task rows. Default 0. */
  seed?: number
  threads?: number
  /** Default `cpu`. */
  device?: Device
  signal?: AbortSignal
  onEvent?: (event: EvaluateEvent) => void
}

export interface EvaluateResult {
  mode: DecodingMode
  blockSize: number
  /** Undefined without data. */
  likelihood: Evaluation | undefined
  /** The base's exact likelihood of the same text. */
  baseline: Evaluation | undefined
  /** Undefined where there is nothing to decode. */
  comparison: ComparisonResult | undefined
}

/** Measures a converted or an autoregressive model. Throws UserError where there is neither data nor a task. */
export async function evaluate(options: EvaluateOptions): Promise<EvaluateResult> {
  const { signal, onEvent } = options
  checkPurpose(options)
  if (options.data) await checkRows({ paths: options.data })
  if (options.adapter !== undefined) await readAdapterConfig(options.adapter)
  const loading = { signal }
  onEvent?.({ type: 'phase', message: `loading ${options.model}` })
  const loaded = await loadForInference(options.model, loading)
  const base = options.base === undefined ? undefined : await loadForInference(options.base, loading)
  return evaluateLoaded(loaded, base, options)
}

function checkPurpose({ data, eval: settings }: Pick<EvaluateOptions, 'data' | 'eval'>): void {
  if (!data && settings.tasks.length === 0)
    throw new UserError('nothing to evaluate: name held-out text (--data) or tasks (--tasks)')
}

/** `evaluate` with models that are in memory already. */
export async function evaluateLoaded(
  loaded: InferenceModel,
  base: InferenceModel | undefined,
  options: Omit<EvaluateOptions, 'model' | 'base'>,
): Promise<EvaluateResult> {
  checkPurpose(options)
  const { signal, onEvent = () => undefined, seed = 0, data, eval: settings } = options
  const phase = (message: string) => onEvent({ type: 'phase', message })
  const { config } = loaded.model
  const adapter = options.adapter === undefined ? undefined : await loadAdapterFor(loaded.model, options.adapter)
  const decoding = modelDecoding(loaded, adapter?.config.decoding)
  // Mistakes in the base's files show before anything is measured.
  if (base) modelDecoding(base)
  // Reports compare the usual way of such models with the base's, whatever mode is configured.
  const mode = adapter ? 'ar' : decoding.modes[0]!
  const blockSize = mode === 'ar' && !adapter ? 1 : (options.blockSize ?? decoding.blockSize)
  const executor = createExecutor({ threads: options.threads, device: options.device })
  try {
    let own: Evaluation | undefined
    let baseline: Evaluation | undefined
    let documents: DataOptions | undefined
    if (data) {
      phase('measuring the likelihood of the held-out text')
      documents = wholeFiles(data, loaded, { ...options, blockSize: mode === 'diffusion' ? blockSize : 1, seed })
      const onReport = (report: DataReport) => describeReport(report).forEach(phase)
      const batches = await validationBatches({ ...documents, onReport }, options.dataTokens ?? 16_384)
      const measure = async (measured: InferenceModel, block: number | 'ar'): Promise<Evaluation> => {
        const evaluator = createEvaluator(executor, measured.model, measured.parameters, {
          ...(block === 'ar' ? {} : { maskTokenId: Number(config.mask_token_id) }),
          shift: config.same_token_labels === false,
          finalBlockSize: block === 'ar' ? 1 : block,
        })
        try {
          return await evaluator.evaluate(batches, { blockSize: block, seed, samples: settings.samples })
        } finally {
          await evaluator.dispose()
        }
      }
      own = await measure(loaded, mode === 'diffusion' ? blockSize : 'ar')
      baseline = base && (await measure(base, 'ar'))
    }
    signal?.throwIfAborted()
    const prompts = await evaluationPrompts(settings, loaded, { ...options, documents, seed })
    const comparison = await compareModels({
      ...options,
      executor,
      prompts,
      base: mode === 'ar' ? (base ?? loaded) : base,
      converted: mode === 'ar' && !adapter ? undefined : { loaded, blockSize, adapter },
      sweep: settings.thresholds,
      onEvent,
    })
    return { mode: adapter ? 'speculative' : mode, blockSize, likelihood: own, baseline, comparison }
  } finally {
    await executor.dispose()
  }
}

/** Data options that take files whole, for measuring. */
export function wholeFiles(
  paths: readonly string[],
  { tokenizer, model }: Pick<LoadedModel, 'tokenizer' | 'model'>,
  options: Pick<EvaluateOptions, 'template' | 'separator' | 'length'> & { blockSize: number; seed: number },
): DataOptions {
  const { blockSize, seed } = options
  const length = options.length ?? Math.min(512, model.dimensions.maxPositions)
  return {
    paths,
    tokenizer,
    seed,
    split: 'validation',
    validationFraction: allDocuments,
    ...documentStyle({ tokenizer, model }, options),
    rows: 1,
    length: length - (length % blockSize),
    blockSize,
  }
}

/** The split holds documents whose hash is below the fraction; just below 1 means all of them. */
export const allDocuments = 1 - 2 ** -33

/** Tasks where any are named, else prompts from the held-out documents. */
export async function evaluationPrompts(
  settings: Recipe['eval'],
  loaded: Pick<InferenceModel, 'tokenizer' | 'model'>,
  options: { documents: DataOptions | undefined; seed: number; template?: 'none' | 'chat'; separator?: string },
): Promise<Prompt[]> {
  const { documents, seed } = options
  const encode = (text: string) => promptIds(text, loaded, options)
  if (settings.tasks.length > 0) return taskPrompts(settings.tasks, settings.task_rows, { seed, encode })
  if (!documents || settings.prompts === 0) return []
  const prompts: Prompt[] = []
  for await (const document of readDocuments({ ...documents, split: 'validation' })) {
    const prompt = promptOf(document, loaded, documents.length)
    if (prompt) prompts.push(prompt)
    if (prompts.length === settings.prompts) break
  }
  return prompts
}

/** The part before the first maskable token; of plain text the first 32 tokens. Undefined where little would follow. */
function promptOf(
  { ids, maskable }: Document,
  { tokenizer }: Pick<LoadedModel, 'tokenizer'>,
  length: number,
): Prompt | undefined {
  const first = maskable.indexOf(1)
  const end = first > 1 ? first : 32
  if (first < 0 || end >= ids.length - 1 || end > length / 2) return undefined
  const prompt = [...ids.subarray(0, end)]
  return {
    text: textOf(tokenizer, prompt),
    ids: prompt,
    task: undefined,
    expected: textOf(tokenizer, ids.subarray(end), { after: prompt }),
  }
}

export interface CompareModelsOptions {
  executor: Executor
  prompts: readonly Prompt[]
  /** Decoded one token at a time. */
  base: InferenceModel | undefined
  /** Decoded in blocks; or, where it comes with an adapter, the base again, with drafts of that adapter. */
  converted: { loaded: InferenceModel; blockSize: number; adapter?: Adapter } | undefined
  decode: Recipe['decode']
  sweep: readonly number[]
  signal?: AbortSignal | undefined
  onEvent?: (event: EvaluateEvent) => void
}

/** The threshold at which every draft is verified. */
const VERIFY_ALL = 1

/** Decodes the prompts with both models, in one executor. Undefined without prompts or models. */
export async function compareModels(options: CompareModelsOptions): Promise<ComparisonResult | undefined> {
  const { executor, prompts, base, converted, decode, signal, onEvent } = options
  if (prompts.length === 0 || !(converted ?? base)) return undefined
  const generators: Generator[] = []
  const open = async (...args: Parameters<typeof createGenerator>): Promise<Generator> => {
    const generator = await createGenerator(...args)
    generators.push(generator)
    return generator
  }
  const common = { signal }
  const adapter = converted?.adapter
  const settings = settingsFromKeys(decode)
  const causal = converted !== undefined && modelDecoding(converted.loaded, adapter?.config.decoding).causalContext
  const { strategy, threshold } = resolveSettings(settings, converted?.loaded.generationConfig)
  const swept = !adapter && (causal || strategyReads(strategy, 'threshold'))
  try {
    const ar = base && (await open(executor, base, { mode: 'ar' }))
    const diffusion =
      converted &&
      (await open(executor, converted.loaded, {
        blockSize: converted.blockSize,
        adapter,
        mode: adapter ? undefined : causal ? 'speculative' : 'diffusion',
      }))
    const comparison = await compareDecoding({
      prompts,
      ...(ar ? { ar: (ids) => written(ar.write(ids, { ...settingsOfMode(settings, 'ar'), ...common })) } : {}),
      ...(diffusion
        ? {
            ...(causal
              ? {
                  own: (ids) =>
                    written(diffusion.write(ids, { ...settingsOfMode(settings, 'ar'), ...common, mode: 'ar' })),
                }
              : {}),
            diffusion:
              (threshold): Decode =>
              (ids) =>
                written(
                  diffusion.write(ids, {
                    ...{ ...settingsOfMode(settings, diffusion.mode), ...common },
                    ...(swept ? { threshold } : {}),
                  }),
                ),
          }
        : {}),
      threshold: adapter || causal ? (settings.threshold ?? VERIFY_ALL) : threshold,
      sweep: swept ? options.sweep : [],
      signal,
      onProgress: ({ label, done, total }) => onEvent?.({ type: 'decoding', label, done, total }),
    })
    return { ...comparison, strategy: diffusion && !adapter && !causal ? strategy : undefined }
  } finally {
    for (const generator of generators) await generator.dispose()
  }
}
