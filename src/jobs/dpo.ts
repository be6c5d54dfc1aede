// Preference training: pairs of answers in, a model that prefers the chosen ones out. It composes data, reference and training
// and holds no method of its own.
import { join } from 'node:path'
import { stringify } from 'yaml'
import { recordFile, recordText, type Score } from '../account/record.ts'
import { type InferenceModel, loadForInference, loadForTraining } from '../checkpoint/load.ts'
import { plainConfig } from '../checkpoint/quantized.ts'
import { versions } from '../core/versions.ts'
import { eosId } from '../data/document.ts'
import type { PackOptions } from '../data/pack.ts'
import { type PairDocuments, pairBatches, pairSource, readPairs, splitPairs, tokensOf } from '../data/pairs.ts'
import { describeReport } from '../data/report.ts'
import type { Pair } from '../data/types.ts'
import { constantSchedule } from '../diffusion/schedule.ts'
import { parameterCounts } from '../models/index.ts'
import type { Model } from '../models/types.ts'
import type { LikelihoodSettings } from '../objectives/dpo.ts'
import { objectiveOf, traits } from '../objectives/index.ts'
import { preferenceOf } from '../objectives/settings.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { documentStyle, promptStyle, withPromptStyle } from '../text/prompt.ts'
import { type TrainEvent, train } from '../train/loop.ts'
import { createPreferenceTrainer } from '../train/preference.ts'
import { type RunFolderOptions, withRunFolder, writeRunRecipe } from '../train/run-folder.ts'
import { storedWeights } from '../train/trained-files.ts'
import type { Evaluation } from '../train/types.ts'
import { checkResumed, columnsOf } from './before-training.ts'
import { checkLength, loopSettings, modelFiles, updateSettings } from './convert.ts'
import { type PreferenceRecipe, type PreferenceRecipeInput, parsePreferenceRecipe } from './dpo-recipe.ts'
import { adapterFolder, lowRank, withAdapter } from './low-rank.ts'
import { RecipeError } from './recipe.ts'
import { measureReference, referenceKey } from './reference.ts'
import { runRecord } from './run-record.ts'
import { saveTrained, writeCard } from './save-trained.ts'

export interface DpoOptions extends RunFolderOptions {
  recipe: PreferenceRecipeInput
  /** As of `ConvertOptions`. */
  fetch?: (model: string) => Promise<unknown>
  /** The command to record. Default: `unmask dpo --recipe recipe.yaml`. */
  command?: string
  /** On abort the step under way is finished and saved. */
  signal?: AbortSignal
  onEvent?: (event: DpoEvent) => void
}

export type DpoEvent =
  | TrainEvent
  | { type: 'phase'; message: string }
  | { type: 'pairs'; training: number; heldOut: number }
  | { type: 'reference'; done: number; total: number }

export interface DpoResult {
  status: 'completed' | 'interrupted'
  step: number
  tokens: number
  /** Folder of the model in Hugging Face layout; undefined where the run was interrupted. */
  model: string | undefined
  /** Folder of the low-rank weights, where those were trained. */
  adapter: string | undefined
  checkpoint: string | undefined
  /** The held-out pairs before and after training; see `createPreferenceTrainer`. */
  before: Evaluation | undefined
  after: Evaluation | undefined
}

/**
 * Trains as the recipe says and saves the model under `output_dir/model`, with low-rank weights under `output_dir/adapter`.
 * Throws UserError for what a user can correct, and TrainingDiverged where loss or gradients explode.
 */
export async function dpo(options: DpoOptions): Promise<DpoResult> {
  const recipe = parsePreferenceRecipe(options.recipe)
  return withRunFolder(recipe.output_dir, options, () => dpoInFolder(recipe, options))
}

/** `dpo` in a run folder that the caller has locked. */
export async function dpoInFolder(recipe: PreferenceRecipe, options: Omit<DpoOptions, 'recipe'>): Promise<DpoResult> {
  const { signal, resume = false, onEvent = () => undefined } = options
  const { output_dir: folder, data, train: training, preference } = recipe
  const phase = (message: string) => onEvent({ type: 'phase', message })

  await options.fetch?.(recipe.model)
  phase(`loading ${recipe.model}`)
  const read: InferenceModel =
    recipe.lora.rank > 0
      ? await loadForInference(recipe.model, { signal })
      : await loadForTraining(recipe.model, { signal })
  const config = withPromptStyle(plainConfig(read.model.config), promptStyle(read, data))
  const model = { ...read.model, config }
  const loaded = { ...read, model }
  const { tokenizer } = loaded
  checkLength(recipe, model.dimensions)
  const { exact, blockSize, maskTokenId, shift } = likelihoodOf(recipe, model)
  const lora = await lowRank(recipe, loaded)
  const packing: PackOptions = {
    rows: 2 * training.micro_batch_size,
    length: data.max_seq_len,
    blockSize: exact ? 1 : blockSize,
    eosId: eosId(tokenizer),
    byteLength: tokenizer.byteLength,
  }

  const { pairs, heldOut } = await readData(recipe, loaded, phase)
  onEvent({ type: 'pairs', training: pairs.length, heldOut: heldOut.length })
  const totalTokens = Math.ceil(training.epochs * tokensOf(pairs, packing.blockSize))
  const settings = {
    schedule: constantSchedule(exact ? 1 : blockSize, totalTokens),
    ...loopSettings(training),
    config: resumeConfig(recipe),
  }
  if (resume) await checkResumed(folder, settings)
  else await writeRunRecipe(folder, stringify(recipe))

  phase('hashing base and data')
  const command = options.command ?? 'unmask dpo --recipe recipe.yaml'
  const recordAt = await runRecord(recipe, { method: 'dpo', command, signal })

  const { total: parameters } = parameterCounts(model)
  phase(
    `${loaded.name}: ${parameters} parameters, ${exact ? 'exact likelihoods' : `the bound in blocks of ${blockSize}`}`,
  )
  const executor = createExecutor(recipe.threads > 0 ? { threads: recipe.threads } : {})
  try {
    const objective = {
      ...{ exact, blockSize, shift, finalBlockSize: packing.blockSize },
      maskTokenId,
      ...preferenceOf(preference),
    }
    const trainer = await createPreferenceTrainer(executor, model, loaded.parameters, {
      ...objective,
      ...updateSettings(training),
      lora,
    })
    phase('measuring the pairs with the reference model')
    const drawn = await drawnPairs(pairs, packing, { ...settings, totalTokens })
    const { beta: _beta, labelSmoothing: _smoothing, ...likelihood } = objective
    const reference = await measureReference({
      trainer,
      training: { pairs: drawn, heldOut: undefined },
      heldOut: { pairs: heldOut.map((pair) => ({ pair, epoch: 0 })), heldOut: preference.validation_draws },
      packing,
      folder: preference.reference_cache ?? join(folder, 'reference'),
      key: await referenceKey(model, loaded.parameters, [...pairs, ...heldOut], {
        ...likelihood,
        ...{ seed: training.seed, validationDraws: preference.validation_draws, length: data.max_seq_len },
      }),
      signal,
      onProgress: (done, total) => onEvent({ type: 'reference', done, total }),
    })
    if (!reference) return { ...interrupted, step: 0, tokens: 0, checkpoint: undefined, before: undefined }
    let before: Evaluation | undefined
    phase('training')
    const result = await train({
      trainer,
      source: pairSource(pairs, { ...packing, seed: training.seed, referenceOf: reference.training }),
      validation: pairBatches(
        heldOut.map((pair) => ({ pair, epoch: 0 })),
        packing,
        reference.heldOut,
      ),
      ...settings,
      validationSamples: preference.validation_draws,
      baseline: null,
      runDirectory: folder,
      resume,
      // Low-rank weights alone are no model.
      files: (spent) => ({ ...(lora ? {} : modelFiles(loaded)), [recordFile]: recordText(recordAt(spent)) }),
      versions: versions(),
      signal,
      onEvent(event) {
        if (event.type === 'validation') before ??= event.step === 0 ? event.validation : undefined
        onEvent(event)
      },
    })
    if (resume) await writeRunRecipe(folder, stringify(recipe))
    const outcome = { step: result.step, tokens: result.tokens, checkpoint: result.checkpoint, before }
    if (result.status === 'interrupted') return { ...interrupted, ...outcome }

    phase('saving the model')
    await trainer.dispose()
    const weights = await storedWeights(result.checkpoint!)
    const trained = lora ? await withAdapter(recipe, { loaded, weights, baseConfig: read.model.config }) : weights
    const path = join(folder, 'model')
    const after = result.validation ?? undefined
    const finished = { ...recordAt(result.spent), scores: scoresOf(before, after) }
    await saveTrained(path, loaded, trained, finished)
    const adapter = lora ? adapterFolder(recipe) : undefined
    if (adapter) await writeCard(adapter, finished, { config, isAdapter: true })
    return { ...outcome, status: 'completed', model: path, adapter, after }
  } finally {
    await executor.dispose()
  }
}

/** What was measured, for the model's card. */
const scoresOf = (before: Evaluation | undefined, after: Evaluation | undefined): Score[] =>
  (
    [
      ['held-out pairs before training', before],
      ['held-out pairs after training', after],
    ] as const
  ).flatMap(([name, evaluation]) =>
    evaluation?.metrics
      ? [
          {
            name,
            value: `${(100 * evaluation.metrics.reward_accuracy!).toFixed(1)} % with the higher reward, margin ${evaluation.metrics.reward_margin!.toFixed(3)}`,
            settings: `${evaluation.metrics.pairs} pairs`,
          },
        ]
      : [],
  )

const interrupted = { status: 'interrupted', model: undefined, adapter: undefined, after: undefined } as const

/** How likely a model's answers are: exactly where it predicts the next token, else by the bound in blocks of its size. */
export function likelihoodOf(
  { data, model: name, preference }: PreferenceRecipe,
  { config }: Pick<Model, 'config'>,
): Pick<LikelihoodSettings, 'exact' | 'blockSize' | 'maskTokenId' | 'shift'> {
  const { mask_token_id: maskTokenId, block_size: size, same_token_labels: sameToken } = config
  if (traits[objectiveOf(config)].exact) {
    if (preference.antithetic)
      throw new RecipeError([
        {
          path: 'preference.antithetic',
          message: `has no meaning for ${name}: its likelihood is exact, without draws`,
        },
      ])
    return { exact: true, blockSize: 1, shift: false }
  }
  const blockSize = typeof size === 'number' ? size : data.max_seq_len
  if (data.max_seq_len % blockSize !== 0)
    throw new RecipeError([
      {
        path: 'data.max_seq_len',
        message: `${data.max_seq_len} is not a multiple of the block size ${blockSize} of ${name}`,
      },
    ])
  return { exact: false, blockSize, maskTokenId: Number(maskTokenId), shift: sameToken === false }
}

async function readData(
  { data }: PreferenceRecipe,
  loaded: InferenceModel,
  phase: (message: string) => void,
): Promise<{ pairs: PairDocuments[]; heldOut: PairDocuments[] }> {
  phase('reading the pairs')
  const options = {
    tokenizer: loaded.tokenizer,
    rendering: { ...documentStyle(loaded, data), turns: data.turns },
    columns: columnsOf(data),
    length: data.max_seq_len,
    badRows: data.bad_rows,
  } as const
  const read = await readPairs({ ...options, paths: data.train_path })
  describeReport(read.report).forEach(phase)
  const limit = (pairs: PairDocuments[]) => pairs.slice(0, data.validation_pairs)
  if (data.validation_path) {
    const others = await readPairs({ ...options, paths: data.validation_path, firstId: read.pairs.length })
    describeReport(others.report).forEach(phase)
    return { pairs: read.pairs, heldOut: limit(others.pairs) }
  }
  const { train, heldOut } = splitPairs(read.pairs, read.points, data.validation_fraction)
  return { pairs: train, heldOut: limit(heldOut) }
}

/** The pairs that training will draw, with their epochs, by epoch and number. */
async function drawnPairs(
  pairs: readonly PairDocuments[],
  packing: PackOptions,
  { seed, accumulation, totalTokens }: { seed: number; accumulation: number; totalTokens: number },
): Promise<{ pair: PairDocuments; epoch: number }[]> {
  const source = pairSource(pairs, { ...packing, seed })
  const byId = new Map(pairs.map((pair) => [pair.id, pair]))
  const drawn: Pair[] = []
  for (let tokens = 0; tokens < totalTokens; )
    for (let i = 0; i < accumulation; i++) {
      const batch = await source.next()
      drawn.push(...(batch.pairs ?? []))
      tokens += batch.tokens
    }
  return drawn.sort((a, b) => a.epoch - b.epoch || a.id - b.id).map(({ id, epoch }) => ({ pair: byId.get(id)!, epoch }))
}

/** What a resumed run must have in common with the one that it continues, beside what the loop itself records. */
function resumeConfig({ model, data, preference, lora, train: training }: PreferenceRecipe): Record<string, unknown> {
  const { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size } = training
  const { reference_cache: _, ...objective } = preference
  return {
    ...{ model, data, preference: objective, lora },
    optimizer: { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size },
  }
}
