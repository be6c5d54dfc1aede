// The main path: a recipe in, a trained model and its report out. It composes the layers and holds no method of its own.
import { join } from 'node:path'
import { stringify } from 'yaml'
import { recordFile, recordText } from '../account/record.ts'
import { exists } from '../checkpoint/file.ts'
import { type LoadedModel, load, loadForInference, loadForTraining } from '../checkpoint/load.ts'
import { plainConfig } from '../checkpoint/quantized.ts'
import type { InferenceParameter, ModelConfig } from '../core/types.ts'
import { versions } from '../core/versions.ts'
import { type DataOptions, type DataReport, openData, validationBatches } from '../data/index.ts'
import { modelDecoding, unreadSettings } from '../decode/model-decoding.ts'
import {
  configuredSettings,
  type SettingName,
  settingKey,
  settingsFromKeys,
  settingsToConfig,
} from '../decode/settings.ts'
import type { MaskToken } from '../diffusion/mask-token.ts'
import { constantSchedule, parseSchedule, type Stage, wsdSchedule } from '../diffusion/schedule.ts'
import type { ComparisonResult } from '../eval/compare.ts'
import { type ReportFiles, writeReport } from '../eval/report/index.ts'
import { parameterCounts, trainedConfig } from '../models/index.ts'
import type { Dimensions } from '../models/types.ts'
import { objectiveOf, traits } from '../objectives/index.ts'
import { denoisingOf } from '../objectives/settings.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { startTorch, type TorchProcess } from '../runtime/torch/process.ts'
import { documentStyle, promptStyle, withPromptStyle } from '../text/prompt.ts'
import { type TrainEvent, type TrainResult, train } from '../train/loop.ts'
import { withMaskToken } from '../train/mask.ts'
import { type MetricsRecord, readMetrics } from '../train/metrics.ts'
import { type RunFolderOptions, runRecipePath, withRunFolder, writeRunRecipe } from '../train/run-folder.ts'
import { storedWeights } from '../train/trained-files.ts'
import { createTrainer, type TrainerOptions } from '../train/trainer.ts'
import type { Evaluation } from '../train/types.ts'
import { checkData, checkResumed, columnsOf, trainPaths } from './before-training.ts'
import { allDocuments, compareModels, type EvaluateEvent, evaluationPrompts } from './evaluate.ts'
import { adapterFolder, lowRank, withAdapter } from './low-rank.ts'
import { parseRecipe, type Recipe, RecipeError, type RecipeInput } from './recipe.ts'
import { runRecord } from './run-record.ts'
import { runReport, scoresOf } from './run-report.ts'
import { saveTrained, writeCard } from './save-trained.ts'

export interface ConvertOptions extends RunFolderOptions {
  recipe: RecipeInput
  /** The command to print in the report. Default: `unmask convert --recipe recipe.yaml`. */
  command?: string
  /**
   * Called before the model is loaded, when recipe, folder and data have been found well: fetches a model that is not on this
   * machine. Default: loading does that.
   */
  fetch?: (model: string) => Promise<unknown>
  /** Skip the report's decoding: only training and likelihood. Default false. */
  skipDecoding?: boolean
  /** On abort the step under way is finished and saved. */
  signal?: AbortSignal
  onEvent?: (event: ConvertEvent) => void
}

export type ConvertEvent =
  | TrainEvent
  | EvaluateEvent
  | {
      type: 'model'
      name: string
      parameters: number
      /** Those that a position uses: fewer than all in a mixture of experts. */
      activeParameters: number
      maskToken: MaskToken | undefined
      /** What of the checkpoint is not part of the trained model, in words. */
      dropped: string | undefined
    }

export interface ConvertResult {
  status: 'completed' | 'interrupted'
  step: number
  tokens: number
  /** Folder of the model in Hugging Face layout; undefined where the run was interrupted. */
  model: string | undefined
  /** Folder of the low-rank weights, where those were trained. */
  adapter?: string
  /** The newest training checkpoint. */
  checkpoint: string | undefined
  report: ReportFiles | undefined
  /** Held-out text under the final weights; undefined where the run was interrupted. */
  evaluation: Evaluation | undefined
  /** The base model's exact likelihood of the same text. */
  baseline: Evaluation | undefined
  comparison: ComparisonResult | undefined
  best: TrainResult['best']
  data: DataReport
}

/**
 * Trains as the recipe says: opens model and data, converts (or trains an autoregressive model), saves the model in
 * Hugging Face layout under `output_dir/model`, measures it against its base, and writes `output_dir/report`.
 * Throws UserError for what a user can correct, and TrainingDiverged where loss or gradients explode.
 */
export async function convert(options: ConvertOptions): Promise<ConvertResult> {
  const recipe = parseRecipe(options.recipe)
  return withRunFolder(recipe.output_dir, options, () => convertInFolder(recipe, options))
}

/** `convert` in a run folder that the caller has locked. */
export async function convertInFolder(recipe: Recipe, options: Omit<ConvertOptions, 'recipe'>): Promise<ConvertResult> {
  if (recipe.executor !== 'torch') return convertWith(undefined, recipe, options)
  // What it lacks is said before anything is fetched, and before the folder holds a run.
  const torch = await startTorch({ processes: recipe.processes })
  try {
    return await convertWith(torch, recipe, options)
  } finally {
    await torch.dispose()
  }
}

async function convertWith(
  torch: TorchProcess | undefined,
  recipe: Recipe,
  options: Omit<ConvertOptions, 'recipe'>,
): Promise<ConvertResult> {
  const { signal, onEvent = () => undefined, resume = false } = options
  const folder = recipe.output_dir
  const phase = (message: string) => onEvent({ type: 'phase', message })

  const settings = { schedule: blockSchedule(recipe), ...diffusionSettings(recipe), config: resumeConfig(recipe) }
  if (resume) await checkResumed(folder, settings)
  const heldOutShare = await checkData(recipe.data)
  await options.fetch?.(recipe.model)
  phase(`loading ${recipe.model}`)
  const { loaded, baseConfig, maskToken, dropped } = await startingModel(recipe, signal)
  // What a model that denoises blocks would give one token at a time says nothing of it.
  const start = objectiveOf(baseConfig)
  const isCausal = start !== 'diffusion'
  const lora = await lowRank(recipe, loaded)
  const { total, active } = parameterCounts(loaded.model)
  onEvent({ type: 'model', name: loaded.name, parameters: total, activeParameters: active, maskToken, dropped })

  const dataOptions = toDataOptions({ ...recipe, blockSize: finalBlockSize(recipe), heldOutShare }, loaded)
  phase('reading the held-out data')
  const documents = heldOut(recipe, dataOptions)
  const validation = await validationBatches(documents, recipe.data.validation_tokens)
  const source = await openData(dataOptions)
  const command = options.command ?? 'unmask convert --recipe recipe.yaml'
  const isFineTuned = start === recipe.objective && recipe.init === 'pretrained'
  phase('hashing base and data')
  const recordAt = await runRecord(recipe, {
    method: isFineTuned ? 'sft' : recipe.objective === 'ar' || recipe.init === 'random' ? 'train' : 'convert',
    ...{ command, signal },
  })
  if (!resume) await writeRunRecipe(folder, stringify(recipe))
  const executor = createExecutor(recipe.threads > 0 ? { threads: recipe.threads } : {})
  try {
    const { dtype, expert_parallel: expertParallel } = recipe
    const training = {
      ...trainerOptions(recipe, maskToken),
      ...{ lora, torch: torch && { process: torch, dtype, expertParallel } },
    }
    const trainer = await createTrainer(executor, loaded.model, loaded.parameters, training)
    phase('training')
    const result = await train({
      trainer,
      source,
      validation,
      ...settings,
      ...(isCausal ? {} : { baseline: null }),
      runDirectory: folder,
      resume,
      // Low-rank weights alone are no model.
      files: (spent) => ({
        ...(recipe.lora.rank > 0 ? {} : modelFiles(loaded)),
        [recordFile]: recordText(recordAt(spent)),
      }),
      versions: versions(),
      signal,
      onEvent,
    })
    if (resume) await writeRunRecipe(folder, stringify(recipe))
    const outcome = {
      step: result.step,
      tokens: result.tokens,
      checkpoint: result.checkpoint,
      baseline: result.baseline ?? undefined,
      best: result.best,
      data: source.report(),
    }
    if (result.status === 'interrupted') return { ...outcome, ...unfinished }

    phase('saving the model')
    const model = join(folder, 'model')
    await trainer.dispose()
    const weights = await storedWeights(result.checkpoint!)
    const trained = recipe.lora.rank > 0 ? await withAdapter(recipe, { loaded, weights, baseConfig }) : weights
    const finished = recordAt(result.spent)
    await saveTrained(model, loaded, trained, finished)
    // The last validation: the final weights, on the same text and with the same draws.
    const evaluation = result.validation!

    const comparison = options.skipDecoding
      ? undefined
      : await compareWithBase({ recipe, isCausal, converted: await load(model), documents, executor, signal, onEvent })
    const fromRandom = recipe.eval.from_random > 0 ? await trainFromRandom(recipe, options) : undefined
    if (fromRandom === 'interrupted') return { ...outcome, ...unfinished }
    phase('writing the report')
    const card = { ...finished, scores: scoresOf(recipe, { evaluation, baseline: outcome.baseline, comparison }) }
    await writeCard(model, card, loaded.model)
    if (lora) await writeCard(adapterFolder(recipe), card, { config: loaded.model.config, isAdapter: true })
    const report = await writeReport(
      join(folder, 'report'),
      runReport({
        recipe,
        isFineTuned,
        loaded,
        maskToken,
        schedule: settings.schedule,
        evaluation,
        comparison,
        baseline: outcome.baseline,
        command,
        threads: executor.threads,
        metrics: await readMetrics(join(folder, 'metrics.jsonl')),
        fromRandom,
      }),
    )
    const adapter = lora && { adapter: adapterFolder(recipe) }
    return { ...outcome, status: 'completed', model, ...adapter, report, evaluation, comparison }
  } finally {
    await source.close()
    await executor.dispose()
  }
}

const unfinished = {
  status: 'interrupted',
  model: undefined,
  report: undefined,
  evaluation: undefined,
  comparison: undefined,
} as const

/** Block size of evaluation and decoding. */
const targetBlockSize = ({ objective, diffusion }: Recipe): number | 'ar' =>
  traits[objective].exact ? 'ar' : diffusion.block_size

/** What the loop needs of a recipe beside model, data and schedule. */
function diffusionSettings(recipe: Recipe) {
  const { diffusion } = recipe
  return {
    ...loopSettings(recipe.train),
    embeddingNoise: {
      sigma: diffusion.embedding_noise_sigma,
      steps: diffusion.embedding_noise_steps,
      decay: diffusion.embedding_noise_decay,
    },
    targetBlockSize: targetBlockSize(recipe),
    validationSamples: recipe.eval.samples,
    // Random weights have no base whose likelihood would say anything.
    ...(recipe.objective === 'ar' || recipe.init === 'random' ? { baseline: null } : {}),
  }
}

/** What the loop needs of the `train` section. */
export function loopSettings(training: Omit<Recipe['train'], 'total_tokens'>) {
  return {
    seed: training.seed,
    learningRate: {
      lr: training.lr,
      lrMin: training.lr_min,
      lrWarmupRatio: training.lr_warmup_ratio,
      lrDecayStyle: training.lr_decay_style,
      lrDecayRatio: training.lr_decay_ratio,
    },
    accumulation: training.global_batch_size / training.micro_batch_size,
    validateEvery: training.eval_steps,
    saveEvery: training.save_steps,
    logEvery: training.log_steps,
    keepBest: training.keep_best,
    earlyStop: training.early_stop,
  }
}

/** Decodes held-out prompts with the trained model and, where that is causal, with the one that it was trained from. */
async function compareWithBase({
  recipe,
  isCausal,
  converted,
  documents,
  ...run
}: Pick<ConvertOptions, 'signal' | 'onEvent'> & {
  recipe: Recipe
  isCausal: boolean
  converted: LoadedModel
  documents: DataOptions
  executor: Executor
}): Promise<ComparisonResult | undefined> {
  const { decode, diffusion, data, eval: settings } = recipe
  const prompts = await evaluationPrompts(settings, converted, {
    documents,
    seed: recipe.train.seed,
    separator: data.separator,
    template: data.template,
  })
  if (recipe.objective === 'ar') {
    return compareModels({ ...run, prompts, base: converted, converted: undefined, decode, sweep: [] })
  }
  return compareModels({
    ...run,
    prompts,
    base:
      recipe.init === 'random' || !isCausal ? undefined : await loadForInference(recipe.model, { signal: run.signal }),
    converted: { loaded: converted, blockSize: diffusion.block_size },
    decode,
    sweep: settings.thresholds,
  })
}

/** The same run from random weights, in a folder of its own; it is resumed where it has begun. Returns its metrics. */
async function trainFromRandom(
  recipe: Recipe,
  options: Omit<ConvertOptions, 'recipe'>,
): Promise<MetricsRecord[] | 'interrupted'> {
  const folder = join(recipe.output_dir, 'from-random')
  options.onEvent?.({ type: 'phase', message: 'once more, from random weights' })
  const { status } = await convert({
    ...options,
    recipe: {
      ...recipe,
      init: 'random',
      output_dir: folder,
      train: { ...recipe.train, total_tokens: Math.round(recipe.train.total_tokens * recipe.eval.from_random) },
      eval: { ...recipe.eval, from_random: 0 },
    },
    resume: await exists(runRecipePath(folder)),
    force: false,
    skipDecoding: true,
  })
  return status === 'interrupted' ? status : readMetrics(join(folder, 'metrics.jsonl'))
}

/** The block sizes of a recipe; `ar` is trained as one stage of block size 1. */
export function blockSchedule(recipe: Recipe): Stage[] {
  const { total_tokens: totalTokens } = recipe.train
  if (!traits[recipe.objective].masks) return constantSchedule(1, totalTokens)
  const { schedule, block_size: finalBlockSize, shares } = recipe.diffusion
  if (recipe.objective === 'hybrid') return constantSchedule(finalBlockSize, totalTokens)
  const length = recipe.data.max_seq_len
  if (schedule === 'constant') return constantSchedule(finalBlockSize, totalTokens)
  if (schedule === 'wsd') return wsdSchedule({ length, finalBlockSize, totalTokens, shares })
  const stages = parseSchedule(schedule, { length, totalTokens })
  const last = stages.at(-1)!.blockSize
  if (last !== finalBlockSize) {
    throw new RecipeError([
      {
        path: 'diffusion.schedule',
        message: `ends with block size ${last}, but the block size is ${finalBlockSize}: make them the same`,
      },
    ])
  }
  return stages
}

/** The model to start from, with its mask token where it is to be converted. */
async function startingModel(
  recipe: Recipe,
  signal: AbortSignal | undefined,
): Promise<{
  loaded: LoadedModel<InferenceParameter>
  /** The config.json of the base as it was read. */
  baseConfig: ModelConfig
  maskToken: MaskToken | undefined
  dropped: string | undefined
}> {
  // Where low-rank weights are trained the model is only run: it may be quantised, and stays so.
  const read =
    recipe.lora.rank > 0
      ? await loadForInference(recipe.model, { signal })
      : await loadForTraining(recipe.model, { init: recipe.init, seed: recipe.train.seed, signal })
  checkLength(recipe, read.model.dimensions)
  modelDecoding(read)
  const { config: trained, dropped } = trainedConfig(plainConfig(read.model.config), recipe.objective)
  const config = withPromptStyle(trained, promptStyle(read, recipe.data))
  const loaded = { ...read, model: { ...read.model, config } }
  const baseConfig = read.model.config
  if (!traits[recipe.objective].masks)
    return { loaded: withDecoding(loaded, recipe), baseConfig, maskToken: undefined, dropped }
  const masked = withMaskToken(loaded, recipe.diffusion.mask_token)
  if (masked.maskToken.source === 'added' && recipe.lora.rank > 0)
    throw new RecipeError([
      {
        path: 'lora.rank',
        message: `low-rank weights cannot make a new token, and ${recipe.model} has no unused one: name one with diffusion.mask_token`,
      },
    ])
  const { model } = masked.loaded
  return {
    loaded: withDecoding(
      { ...masked.loaded, model: { ...model, config: decodingConfig(model.config, recipe) } },
      recipe,
    ),
    baseConfig,
    maskToken: masked.maskToken,
    dropped,
  }
}

/** Throws RecipeError where rows are longer than the model's positions. */
export function checkLength(
  { model, data: { max_seq_len: length } }: { model: string; data: Pick<Recipe['data'], 'max_seq_len'> },
  { maxPositions }: Dimensions,
): void {
  if (length > maxPositions)
    throw new RecipeError([
      { path: 'data.max_seq_len', message: `${length} is more than the ${maxPositions} positions of ${model}` },
    ])
}

/** The config with what decoding needs to know, as LLaDA2's checkpoints have it; what it says already is left unsaid. */
export function decodingConfig(
  config: ModelConfig,
  { objective, diffusion: { block_size, same_token_labels, own_predictions = 0, group_size = 1 } }: DecodingRecipe,
): ModelConfig {
  if (objective === 'hybrid') return { ...config, block_size, causal_context: true }
  const { causal_context: _, ...others } = config
  const said = config.same_token_labels ?? true
  return {
    ...others,
    block_size,
    ...(same_token_labels === said ? {} : { same_token_labels }),
    ...(own_predictions > 0 && { soft_states: true }),
    ...(group_size > 1 && { noised_groups: true }),
  }
}

interface DecodingRecipe {
  objective: Recipe['objective']
  diffusion: Pick<Recipe['diffusion'], 'block_size' | 'same_token_labels'> &
    Partial<Pick<Recipe['diffusion'], 'own_predictions' | 'group_size'>>
}

/** Documents are padded to multiples of this. */
const finalBlockSize = ({ objective, diffusion }: Pick<Recipe, 'objective' | 'diffusion'>): number =>
  traits[objective].exact ? 1 : diffusion.block_size

/** `heldOutShare`: what `checkData` returned. */
export function toDataOptions(
  {
    data,
    train: training,
    blockSize,
    heldOutShare,
  }: Pick<Recipe, 'data' | 'train'> & { blockSize: number; heldOutShare: number },
  { tokenizer, model }: Pick<LoadedModel, 'tokenizer' | 'model'>,
): DataOptions {
  return {
    paths: trainPaths(data),
    tokenizer,
    seed: training.seed,
    validationFraction: heldOutShare,
    ...documentStyle({ tokenizer, model }, data),
    turns: data.turns,
    columns: columnsOf(data),
    badRows: data.bad_rows,
    shuffleBuffer: data.shuffle_buffer,
    rows: training.micro_batch_size,
    length: data.max_seq_len,
    blockSize,
  }
}

/** The same options for the held-out documents. */
export function heldOut(recipe: Pick<Recipe, 'data'>, options: DataOptions): DataOptions {
  const paths = recipe.data.validation_path
  return paths
    ? { ...options, paths, split: 'validation', validationFraction: allDocuments }
    : { ...options, split: 'validation' }
}

function trainerOptions(recipe: Recipe, maskToken: MaskToken | undefined): TrainerOptions {
  const { train: training, diffusion, moe, objective } = recipe
  return {
    objective,
    maskTokenId: maskToken?.id,
    ...denoisingOf(diffusion),
    finalBlockSize: finalBlockSize(recipe),
    ...updateSettings(training),
    routing: {
      freezeRouters: moe.router === 'frozen',
      biasUpdateRate: moe.router_bias_update_rate,
      auxLossCoefficient: moe.router_aux_loss_coef,
    },
  }
}

/** What an update needs of the `train` section. */
export const updateSettings = (training: Omit<Recipe['train'], 'total_tokens'>) => ({
  seed: training.seed,
  beta1: training.beta1,
  beta2: training.beta2,
  epsilon: training.adam_eps,
  weightDecay: training.weight_decay,
  maxGradNorm: training.max_grad_norm,
  gradientCheckpointing: training.enable_gradient_checkpointing,
})

/** What a resumed run must have in common with the one that it continues, beside what the loop itself records. */
function resumeConfig(recipe: Recipe): Record<string, unknown> {
  const { model, init, objective, data, diffusion, moe, lora, train: training } = recipe
  const { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size } = training
  return {
    model,
    init,
    objective,
    data,
    diffusion,
    moe,
    lora,
    optimizer: { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size },
  }
}

/**
 * The model with a generation_config.json that says the recipe's way of decoding, and its base's as far as it reads that.
 * Throws RecipeError for a setting that it does not read.
 */
function withDecoding<M extends Omit<LoadedModel, 'parameters'>>(loaded: M, recipe: Pick<Recipe, 'decode'>): M {
  const { model, generationConfig } = loaded
  const own = configuredSettings(settingsToConfig(settingsFromKeys(recipe.decode)))
  const [wrong] = Object.entries(unreadSettings(own, model)) as [SettingName, string][]
  if (wrong) throw new RecipeError([{ path: `decode.${settingKey(wrong[0])}`, message: wrong[1] }])
  const inherited = configuredSettings(generationConfig ?? {})
  for (const name of Object.keys(unreadSettings(inherited, model)) as SettingName[]) delete inherited[name]
  const merged = { ...generationConfig, ...settingsToConfig({ ...inherited, ...own }) }
  const kept = Object.entries(merged).filter(([, value]) => value !== null)
  return kept.length > 0 ? { ...loaded, generationConfig: Object.fromEntries(kept) } : loaded
}

/** Files that make a training checkpoint a model that loads on its own. */
export function modelFiles({
  model,
  tokenizer,
  generationConfig,
}: Omit<LoadedModel, 'parameters'>): Record<string, string> {
  const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
  return {
    ...tokenizer.files(),
    'config.json': json(model.config),
    ...(generationConfig ? { 'generation_config.json': json(generationConfig) } : {}),
  }
}
