// Reinforcement learning: tasks with a checker in, a model that solves more of them out. It composes tasks, decoding and training
// and holds no method of its own.
import { join } from 'node:path'
import { stringify } from 'yaml'
import { recordFile, recordText, type Score } from '../account/record.ts'
import { loadForTraining } from '../checkpoint/load.ts'
import { plainConfig } from '../checkpoint/quantized.ts'
import { UserError } from '../core/types.ts'
import { versions } from '../core/versions.ts'
import type { Batch, BatchSource } from '../data/types.ts'
import { constantSchedule } from '../diffusion/schedule.ts'
import { parameterCounts } from '../models/index.ts'
import { objectiveOf } from '../objectives/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { check, type Split, taskRow } from '../tasks/index.ts'
import { promptIds } from '../text/prompt.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import { type TrainEvent, train } from '../train/loop.ts'
import { type RunFolderOptions, withRunFolder, writeRunRecipe } from '../train/run-folder.ts'
import { storedWeights } from '../train/trained-files.ts'
import type { Evaluation } from '../train/types.ts'
import { checkResumed } from './before-training.ts'
import { checkLength, loopSettings, modelFiles, updateSettings } from './convert.ts'
import { createPolicyTrainer, type Question } from './policy-trainer.ts'
import { RecipeError } from './recipe.ts'
import { parseRlRecipe, type RlRecipe, type RlRecipeInput } from './rl-recipe.ts'
import { runRecord } from './run-record.ts'
import { saveTrained } from './save-trained.ts'

export interface RlOptions extends RunFolderOptions {
  recipe: RlRecipeInput
  /** As of `ConvertOptions`. */
  fetch?: (model: string) => Promise<unknown>
  /** The command to record. Default: `unmask rl --recipe recipe.yaml`. */
  command?: string
  /** On abort the step under way is finished and saved. */
  signal?: AbortSignal
  onEvent?: (event: RlEvent) => void
}

/** Tokens of events are answers. */
export type RlEvent = TrainEvent | { type: 'phase'; message: string }

export interface RlResult {
  status: 'completed' | 'interrupted'
  step: number
  /** Folder of the model in Hugging Face layout; undefined where the run was interrupted. */
  model: string | undefined
  checkpoint: string | undefined
  /** The held-out questions before and after training; see `createPolicyTrainer`. */
  before: Evaluation | undefined
  after: Evaluation | undefined
}

/**
 * Trains as the recipe says and saves the model under `output_dir/model`. Throws UserError for what a user can correct, and
 * TrainingDiverged where loss or gradients explode.
 */
export async function rl(options: RlOptions): Promise<RlResult> {
  const recipe = parseRlRecipe(options.recipe)
  return withRunFolder(recipe.output_dir, options, () => rlInFolder(recipe, options))
}

/** `rl` in a run folder that the caller has locked. */
export async function rlInFolder(recipe: RlRecipe, options: Omit<RlOptions, 'recipe'>): Promise<RlResult> {
  const { signal, resume = false, onEvent = () => undefined } = options
  const { output_dir: folder, data, train: training, policy } = recipe
  const phase = (message: string) => onEvent({ type: 'phase', message })
  const settings = {
    // A step counts its answers: the loop ends after `steps` of them.
    schedule: constantSchedule(1, training.steps * policy.questions * policy.group),
    ...loopSettings({ ...training, micro_batch_size: 1, global_batch_size: 1 }),
    config: resumeConfig(recipe),
  }
  if (resume) await checkResumed(folder, settings)
  await options.fetch?.(recipe.model)
  phase(`loading ${recipe.model}`)
  const read = await loadForTraining(recipe.model, { signal })
  const model = { ...read.model, config: plainConfig(read.model.config) }
  const loaded = { ...read, model }
  checkLength(recipe, model.dimensions)
  const { block_size: size, mask_token_id: maskTokenId, same_token_labels: sameToken } = model.config
  if (objectiveOf(model.config) !== 'diffusion' || typeof size !== 'number')
    throw new UserError(`${recipe.model} is no model of block diffusion: convert it first, with --objective diffusion`)
  if (data.max_seq_len % size !== 0)
    throw new RecipeError([
      { path: 'data.max_seq_len', message: `${data.max_seq_len} is not a multiple of the block size ${size}` },
    ])
  if (!resume) await writeRunRecipe(folder, stringify(recipe))
  phase('hashing the base')
  const command = options.command ?? 'unmask rl --recipe recipe.yaml'
  const recordAt = await runRecord(recipe, { method: 'rl', command, signal })
  phase(`${loaded.name}: ${parameterCounts(model).total} parameters, blocks of ${size}`)

  /** The questions are the rows of the tasks in turn, numbered without end. */
  const question = (index: number, split: Split): Question => {
    const task = data.tasks[index % data.tasks.length]!
    const { prompt } = taskRow(task, training.seed, Math.floor(index / data.tasks.length), split)
    return {
      id: `${split} ${index}`,
      ids: promptIds(prompt, loaded),
      reward: async (text) => Number(check(task, prompt, text)),
    }
  }
  const executor = createExecutor(recipe.threads > 0 ? { threads: recipe.threads } : {})
  try {
    const trainer = await createPolicyTrainer(executor, model, loaded.parameters, {
      ...updateSettings({ ...training, micro_batch_size: 1, global_batch_size: 1 }),
      ...{ blockSize: size, maskTokenId: Number(maskTokenId), shift: sameToken === false },
      hiddenSize: model.dimensions.hiddenSize,
      tokenizer: loaded.tokenizer,
      eosTokenIds: endTokens(loaded),
      ...{ clip: policy.clip, group: policy.group, updates: policy.updates },
      ...{ rows: training.micro_batch_size, length: data.max_seq_len },
      rollout: {
        strategy: policy.strategy,
        ...(policy.threshold !== undefined && { threshold: policy.threshold }),
        ...(policy.tokens_per_step !== undefined && { tokensPerStep: policy.tokens_per_step }),
        maxNewTokens: policy.max_new_tokens,
      },
      questionsOf: ({ documentIds }) =>
        documentIds.map((id) => {
          const [split, index] = id.split(' ')
          return question(Number(index), split as Split)
        }),
    })
    let before: Evaluation | undefined
    phase('training')
    const result = await train({
      trainer,
      source: questionSource(policy),
      validation: [questionBatch('test', 0, data.validation_rows, 1)],
      ...settings,
      baseline: null,
      runDirectory: folder,
      resume,
      files: (spent) => ({ ...modelFiles(loaded), [recordFile]: recordText(recordAt(spent)) }),
      versions: versions(),
      signal,
      onEvent(event) {
        if (event.type === 'validation') before ??= event.step === 0 ? event.validation : undefined
        onEvent(event)
      },
    })
    const outcome = { step: result.step, checkpoint: result.checkpoint, before }
    if (result.status === 'interrupted')
      return { ...outcome, status: 'interrupted', model: undefined, after: undefined }
    phase('saving the model')
    await trainer.dispose()
    const path = join(folder, 'model')
    const after = result.validation ?? undefined
    const finished = { ...recordAt(result.spent), scores: scoresOf(recipe, before, after) }
    await saveTrained(path, loaded, await storedWeights(result.checkpoint!), finished)
    return { ...outcome, status: 'completed', model: path, after }
  } finally {
    await executor.dispose()
  }
}

/** What was measured, for the model's card. */
function scoresOf({ data }: RlRecipe, before: Evaluation | undefined, after: Evaluation | undefined): Score[] {
  const score = (name: string, { stderr, metrics = {} }: Evaluation): Score => ({
    name,
    value: `${(100 * metrics.reward!).toFixed(1)} ± ${(100 * stderr).toFixed(1)} %, ${metrics.tokens_per_forward!.toFixed(2)} tokens per forward`,
    settings: `${data.validation_rows} questions of ${data.tasks.join(', ')}`,
  })
  return [
    ...(before ? [score('held-out questions before training', before)] : []),
    ...(after ? [score('held-out questions after training', after)] : []),
  ]
}

/** A batch that names questions; it holds no text. Its tokens are the answers that it asks for. */
const questionBatch = (split: Split, first: number, count: number, group: number): Batch => ({
  ...{ rows: 0, length: 0, tokens: count * group, bytes: count },
  ...{ ids: new Int32Array(), documents: new Int32Array(), positions: new Int32Array() },
  ...{ maskable: new Uint8Array(), padding: new Uint8Array() },
  documentIds: Array.from({ length: count }, (_, i) => `${split} ${first + i}`),
})

/** The questions in order. */
function questionSource({ questions, group }: RlRecipe['policy']): BatchSource {
  let next = 0
  return {
    async next() {
      const batch = questionBatch('train', next, questions, group)
      next += questions
      return batch
    },
    position: () => ({ next }),
    async restore(position) {
      next = Number(position.next)
    },
  }
}

/** What a resumed run must have in common with the one that it continues, beside what the loop itself records. */
function resumeConfig({ model, data, policy, train: training }: RlRecipe): Record<string, unknown> {
  const { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size } = training
  return { model, data, policy, optimizer: { max_grad_norm, weight_decay, beta1, beta2, adam_eps, micro_batch_size } }
}
