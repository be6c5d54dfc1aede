// A lossless accelerator for an autoregressive model: an adapter that drafts tokens at mask positions, which the model itself
// then verifies. It composes data, training and decoding and holds no method of its own.

import { join } from 'node:path'
import { stringify } from 'yaml'
import { recordFile, recordText } from '../account/record.ts'
import { type AdapterConfig, saveAdapter } from '../checkpoint/adapter.ts'
import { type LoadedModel, load, scaled } from '../checkpoint/load.ts'
import { type Parameter, UserError } from '../core/types.ts'
import { versions } from '../core/versions.ts'
import { completionBatches, completionSource, splitCompletions } from '../data/completions.ts'
import { type DataOptions, type DataReport, describeReport, openData, validationBatches } from '../data/index.ts'
import type { Batch, BatchSource } from '../data/types.ts'
import { settingDefault } from '../decode/settings.ts'
import { constantSchedule } from '../diffusion/schedule.ts'
import type { Model } from '../models/index.ts'
import { defaultTargetModules, initialLora } from '../models/lora.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createGenerator } from '../text/generator.ts'
import { type TrainEvent, train } from '../train/loop.ts'
import { maskTokenOf } from '../train/mask.ts'
import { type RunFolderOptions, withRunFolder, writeRunRecipe } from '../train/run-folder.ts'
import { storedWeights } from '../train/trained-files.ts'
import { createStridedTrainer } from '../train/trainer.ts'
import type { Evaluation } from '../train/types.ts'
import { checkData, checkPrompts, checkResumed } from './before-training.ts'
import { type Choice, chooseSettings } from './choose-draft-settings.ts'
import { checkLength, heldOut, loopSettings, toDataOptions, updateSettings } from './convert.ts'
import { evaluationPrompts } from './evaluate.ts'
import { lowRankShapes } from './low-rank.ts'
import { type AcceleratorRecipe, type AcceleratorRecipeInput, parseAcceleratorRecipe } from './recipe.ts'
import { runRecord } from './run-record.ts'
import { writeCard } from './save-trained.ts'
import { selfGenerate } from './self-generate.ts'

export interface AccelerateOptions extends RunFolderOptions {
  recipe: AcceleratorRecipeInput
  /** As of `ConvertOptions`. */
  fetch?: (model: string) => Promise<unknown>
  /** The command to record. Default: `unmask accelerate --recipe recipe.yaml`. */
  command?: string
  /** On abort the step under way is finished and saved. */
  signal?: AbortSignal
  onEvent?: (event: AccelerateEvent) => void
}

export type AccelerateEvent =
  | TrainEvent
  | { type: 'phase'; message: string }
  | { type: 'generating'; tokens: number; totalTokens: number }

export interface AccelerateResult {
  status: 'completed' | 'interrupted'
  step: number
  tokens: number
  /** Parameters that are trained. */
  parameters: number
  /** Folder of the adapter; undefined where the run was interrupted. */
  adapter: string | undefined
  checkpoint: string | undefined
  /** Negative log-likelihood per mask of held-out text. */
  validation: Evaluation | undefined
  /** How it decodes best on this machine, and how the model does alone; undefined without held-out prompts. */
  decoding: Choice | undefined
}

/**
 * Trains an adapter as the recipe says and saves it under `output_dir/adapter`. The model itself is not changed.
 * Throws UserError for what a user can correct, and TrainingDiverged where loss or gradients explode.
 */
export async function accelerate(options: AccelerateOptions): Promise<AccelerateResult> {
  const recipe = parseAcceleratorRecipe(options.recipe)
  return withRunFolder(recipe.output_dir, options, () => accelerateInFolder(recipe, options))
}

/** `accelerate` in a run folder that the caller has locked. */
export async function accelerateInFolder(
  recipe: AcceleratorRecipe,
  options: Omit<AccelerateOptions, 'recipe'>,
): Promise<AccelerateResult> {
  const { signal, onEvent = () => undefined, resume = false } = options
  const folder = recipe.output_dir
  const phase = (message: string) => onEvent({ type: 'phase', message })

  const { rank, lora_alpha: alpha, block_size: blockSize, copies, distill } = recipe.adapter
  const settings = {
    schedule: constantSchedule(blockSize, recipe.train.total_tokens),
    ...loopSettings(recipe.train),
  }
  if (resume) await checkResumed(folder, { ...settings, config: resumeConfig(recipe, recipe.adapter.target_modules) })
  const heldOutShare = await shareToHoldOut(recipe)
  await options.fetch?.(recipe.model)
  phase(`loading ${recipe.model}`)
  const loaded = await load(recipe.model, { signal })
  const { model } = loaded
  checkBase(recipe, model)
  const targetModules = recipe.adapter.target_modules ?? defaultTargetModules(model)
  const shapes = lowRankShapes(model, { rank, targetModules }, 'adapter')
  const maskToken = maskTokenOf(loaded, recipe.adapter.mask_token)
  if (!resume) await writeRunRecipe(folder, stringify(recipe))

  phase('hashing base and data')
  const command = options.command ?? 'unmask accelerate --recipe recipe.yaml'
  const recordAt = await runRecord(recipe, { method: 'accelerate', command, signal })
  const executor = createExecutor(recipe.threads > 0 ? { threads: recipe.threads } : {})
  try {
    const { source, validation, prompts } = await openBatches(recipe, loaded, {
      executor,
      heldOutShare,
      signal,
      onEvent,
    })
    try {
      const embedding = meanRow(loaded.parameters.get(model.embeddingName)!)
      const trainer = await createStridedTrainer(
        executor,
        model,
        loaded.parameters,
        initialLora(shapes, embedding, recipe.train.seed),
        {
          size: blockSize,
          count: Math.max(1, Math.round((copies * recipe.data.max_seq_len) / blockSize)),
          distill,
          scale: alpha / rank,
          ...updateSettings(recipe.train),
        },
      )
      phase('training')
      const result = await train({
        trainer,
        source,
        validation,
        ...settings,
        targetBlockSize: blockSize,
        baseline: null,
        runDirectory: folder,
        resume,
        config: resumeConfig(recipe, targetModules),
        versions: versions(),
        files: (spent) => ({ [recordFile]: recordText(recordAt(spent)) }),
        signal,
        onEvent,
      })
      if (resume) await writeRunRecipe(folder, stringify(recipe))
      const outcome = {
        step: result.step,
        tokens: result.tokens,
        parameters: [...shapes.values()].reduce((sum, [rows, columns]) => sum + rows! * columns!, 0),
        checkpoint: result.checkpoint,
        validation: result.validation ?? undefined,
      }
      if (result.status === 'interrupted')
        return { ...outcome, status: 'interrupted', adapter: undefined, decoding: undefined }
      await trainer.dispose()
      const parameters = new Map<string, Parameter>()
      for (const [name, stored] of await storedWeights(result.checkpoint!)) parameters.set(name, await stored.read())
      const config: AdapterConfig = {
        ...{ rank, alpha, targetModules, dora: false, blockSize },
        base: recipe.model,
        maskTokenId: maskToken.id,
        decoding: { masks: Math.min(4, blockSize), rowCost: settingDefault('rowCost') },
      }
      const adapter = join(folder, 'adapter')
      await saveAdapter(adapter, { config, parameters })
      await writeCard(adapter, recordAt(result.spent), { config: model.config, isAdapter: true })
      phase('measuring how it decodes fastest')
      const decoding = await chooseSettings({
        executor,
        loaded,
        adapter: { config, parameters: scaled(parameters, alpha / rank) },
        prompts,
        maxNewTokens: recipe.decode.max_new_tokens,
        signal,
      })
      if (decoding) await saveAdapter(adapter, { config: { ...config, decoding: decoding.settings }, parameters })
      return { ...outcome, status: 'completed', adapter, decoding }
    } finally {
      await source.close()
    }
  } finally {
    await executor.dispose()
  }
}

function checkBase(recipe: AcceleratorRecipe, { config, dimensions }: Model): void {
  if (typeof config.mask_token_id === 'number')
    throw new UserError(
      `${recipe.model} is a diffusion model (its config.json has a mask_token_id); an accelerator is for autoregressive ones`,
    )
  checkLength(recipe, dimensions)
}

/** Checks the data. What the model writes itself is split after that. */
async function shareToHoldOut({ data, adapter }: AcceleratorRecipe): Promise<number> {
  if (adapter.self_generate === undefined) return checkData(data)
  await checkPrompts(data)
  return 0
}

type Source = BatchSource & { close(): Promise<void> }

/** Batches of the data, or of the model's own answers to its prompts. */
async function openBatches(
  recipe: AcceleratorRecipe,
  loaded: LoadedModel,
  {
    executor,
    heldOutShare,
    signal,
    onEvent,
  }: {
    executor: Executor
    heldOutShare: number
    signal: AbortSignal | undefined
    onEvent: (event: AccelerateEvent) => void
  },
): Promise<{ source: Source; validation: Batch[]; prompts: (readonly number[])[] }> {
  const options = toDataOptions({ ...recipe, blockSize: 1, heldOutShare }, loaded)
  const { self_generate: totalTokens } = recipe.adapter
  const { prompts: count } = recipe.eval
  const onReport = (report: DataReport) => {
    for (const message of describeReport(report)) onEvent({ type: 'phase', message })
  }
  const { validation_tokens: validationTokens, validation_fraction: fraction } = recipe.data
  if (totalTokens === undefined) {
    onEvent({ type: 'phase', message: 'reading the held-out data' })
    const documents = heldOut(recipe, options)
    const validation = await validationBatches({ ...documents, onReport }, validationTokens)
    const settings = { tasks: [], task_rows: 0, prompts: count, thresholds: [], samples: 2, from_random: 0 }
    const prompts = await evaluationPrompts(settings, loaded, { documents, seed: options.seed })
    return { validation, source: await openData(options), prompts: prompts.map(({ ids }) => ids) }
  }
  onEvent({ type: 'phase', message: "writing the base's own answers" })
  const generator = await createGenerator(executor, loaded, { mode: 'ar' })
  try {
    const completions = await selfGenerate({
      generator,
      documents: { ...options, split: 'train', onReport },
      file: join(recipe.output_dir, 'self-generated.jsonl'),
      tokens: totalTokens,
      maxNewTokens: recipe.decode.max_new_tokens,
      maxPromptTokens: Math.floor(recipe.data.max_seq_len / 2),
      signal,
      onProgress: (tokens) => onEvent({ type: 'generating', tokens, totalTokens }),
    })
    const { train: trained, heldOut: held } = splitCompletions(completions, options.seed, fraction)
    const packing = packOptions(options)
    return {
      validation: completionBatches(held, packing, validationTokens),
      prompts: held.slice(0, count).map(({ prompt }) => prompt),
      source: { ...completionSource(trained, { ...packing, seed: options.seed }), close: async () => undefined },
    }
  } finally {
    await generator.dispose()
  }
}

const packOptions = ({ rows, length, tokenizer }: DataOptions) => ({
  rows,
  length,
  blockSize: 1,
  eosId: tokenizer.eosTokenId ?? 0,
  byteLength: tokenizer.byteLength,
})

/** The mean of a matrix's rows: the first embedding of the mask token, which the base has never seen. */
function meanRow({ shape, data }: { shape: readonly number[]; data: Float32Array }): Float32Array {
  const [rows, width] = shape as [number, number]
  const sums = new Float64Array(width)
  for (let i = 0; i < rows * width; i++) sums[i % width]! += data[i]!
  return Float32Array.from(sums, (sum) => sum / rows)
}

/** What a resumed run must have in common with the one that it continues, beside what the loop itself records. */
function resumeConfig(
  { model, data, adapter, decode, train: training }: AcceleratorRecipe,
  targetModules: readonly string[] | undefined,
) {
  const { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size } = training
  return {
    model,
    data,
    adapter: { ...adapter, target_modules: targetModules },
    max_new_tokens: decode.max_new_tokens,
    optimizer: { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size },
  }
}
