// Training on rewards: answers are written with the weights as they lie on the executor, judged, and trained on. It composes
// decoding, tasks and training.

import { updateFlops } from '../account/flops.ts'
import type { InferenceParameter } from '../core/types.ts'
import { UserError } from '../core/types.ts'
import { createPacker } from '../data/pack.ts'
import type { Batch } from '../data/types.ts'
import { createEngine, type Engine, type StrategyName } from '../decode/index.ts'
import type { Model } from '../models/types.ts'
import { type PolicySettings, policy, UNDECIDED } from '../objectives/policy.ts'
import type { Executor } from '../runtime/executor.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { createStepper, isMatrix, type StepperOptions } from '../train/stepper.ts'
import { type LocalTrainer, stepperTrainer, trainable } from '../train/trainer.ts'

/** What is asked, and how an answer is judged. */
export interface Question {
  id: string
  /** Tokens of the prompt. */
  ids: readonly number[]
  /** What an answer is worth, 0 to 1. */
  reward(text: string): Promise<number>
}

/** How answers are written: blocks one after the other, so that each is decided behind clean ones. */
export interface RolloutSettings {
  strategy: StrategyName
  threshold?: number | undefined
  tokensPerStep?: number | undefined
  maxNewTokens: number
}

export interface PolicyTrainerOptions extends Omit<StepperOptions, 'base' | 'loraScale' | 'decays'>, PolicySettings {
  seed: number
  tokenizer: Tokenizer
  eosTokenIds: readonly number[]
  /** The questions of a batch of `train`, and all that `evaluate` asks. */
  questionsOf(batch: Batch): readonly Question[]
  /** Answers to each question, of which the advantages are told. */
  group: number
  /** Updates with the answers of a step. */
  updates: number
  rollout: RolloutSettings
  /** Rows of a forward and backward pass, and their length, a multiple of the block size. */
  rows: number
  length: number
}

/** An answer as it was written. */
interface Written {
  question: Question
  ids: number[]
  /** Forward that decided each token behind the prompt, and its probability then; tokens behind the EOS among them. */
  steps: Int32Array
  nll: Float32Array
  tokens: number
  forwards: number
  reward: number
}

/**
 * Puts the weights on the executor, and an engine that decodes with them where they lie. A step writes `group` answers to each
 * question at temperature 1, and trains on those of questions whose answers are not all worth the same. Advantages are rewards
 * less their mean within the group, divided by their deviation. The loss of a step is 1 less the mean reward of its answers; what
 * is differentiated is the metric `policy_loss` of its last update. `evaluate` answers at temperature 0; its `nll` is 1 less the mean
 * reward, and `stderr` the standard error of that over the questions.
 */
export async function createPolicyTrainer(
  executor: Executor,
  model: Model,
  initial: ReadonlyMap<string, InferenceParameter>,
  options: PolicyTrainerOptions,
): Promise<LocalTrainer> {
  const { seed, blockSize, maskTokenId, shift, group, updates, rollout, questionsOf, tokenizer } = options
  if (model.mixtures.length > 0) throw new UserError('training on rewards of a mixture of experts is not there yet')
  const stepper = await createStepper(executor, model, trainable(initial), {
    ...options,
    decays: (name) => isMatrix(model, name),
  })
  const engine: Engine = await createEngine(
    executor,
    model,
    { resident: stepper.resident! },
    { maskTokenId: maskTokenId!, eosTokenIds: options.eosTokenIds, shift: shift ?? false },
  )

  async function write(question: Question, sampling: { temperature: number; seed: number }): Promise<Written> {
    const { ids } = question
    const generation = engine.generate(ids, { ...rollout, ...sampling, blockSize, bufferSize: 1 })
    const decided = new Map<number, { token: number; step: number; confidence: number }>()
    for (;;) {
      const { done, value } = await generation.next()
      if (!done) {
        for (const { position, token, confidence } of value.tokens)
          decided.set(position, { token, step: value.step, confidence })
        continue
      }
      const last = Math.max(ids.length - 1, ...decided.keys())
      const end = Math.min(Math.ceil((last + 1) / blockSize) * blockSize, options.length)
      const written: Written = {
        question,
        ids: [...ids],
        steps: new Int32Array(end).fill(-1),
        nll: new Float32Array(end),
        tokens: value.tokens,
        forwards: value.forwards,
        reward: await question.reward(textOf(value.ids)),
      }
      for (let i = ids.length; i < end; i++) {
        const found = decided.get(i)
        written.ids.push(found?.token ?? options.eosTokenIds[0]!)
        written.steps[i] = found?.step ?? UNDECIDED
        written.nll[i] = found ? -Math.log(Math.max(found.confidence, 1e-9)) : 0
      }
      return written
    }
  }

  /** The text before the first EOS. */
  function textOf(ids: readonly number[]): string {
    const end = ids.findIndex((id) => options.eosTokenIds.includes(id))
    return tokenizer.decode(end === -1 ? [...ids] : ids.slice(0, end))
  }

  // Of the updates alone: what writing the answers costs is not counted.
  const flops = updateFlops(model, undefined)
  /** Of the last update, which a step without one repeats: 0 would make others seem to explode. */
  let gradNorm = 0
  const local = stepperTrainer(stepper, seed, { prepare: () => unused(), measure: () => unused(), flops: unused })
  return {
    ...local,

    async step({ step, batches, learningRate }) {
      const questions = batches.flatMap((batch) => questionsOf(batch))
      const answers = await Promise.all(
        questions.map((question, q) =>
          Promise.all(
            Array.from({ length: group }, (_, i) => {
              const number = (step * questions.length + q) * group + i
              return write(question, { temperature: 1, seed: (seed * 0x9e3779b1 + number) % 2 ** 31 })
            }),
          ),
        ),
      )
      const all = answers.flat()
      const told = answers.flatMap((list) => withAdvantages(list))
      const metrics = {
        reward: mean(all.map(({ reward }) => reward)),
        tokens_per_forward: sum(all.map(({ tokens }) => tokens)) / sum(all.map(({ forwards }) => forwards)),
        told_apart: told.length / all.length,
      }
      const loss = 1 - metrics.reward
      if (told.length === 0) return { loss, gradNorm, metrics, flops: 0 }
      const microBatches = packed(told, options).map((batch) => policy.prepare(batch, undefined, options))
      let last = await stepper.update(microBatches, learningRate)
      for (let update = 1; update < updates; update++) last = await stepper.update(microBatches, learningRate)
      gradNorm = last.gradNorm
      return {
        loss,
        gradNorm,
        metrics: { ...last.metrics, policy_loss: last.loss, ...metrics },
        flops: updates * sum(microBatches.map(flops)),
      }
    },

    async evaluate(batches) {
      const questions = batches.flatMap((batch) => questionsOf(batch))
      const answers = await Promise.all(questions.map((question) => write(question, { temperature: 0, seed: 0 })))
      const rewards = answers.map(({ reward }) => reward)
      const reward = mean(rewards)
      const variance = mean(rewards.map((value) => (value - reward) ** 2))
      const tpf = sum(answers.map(({ tokens }) => tokens)) / sum(answers.map(({ forwards }) => forwards))
      return {
        nll: 1 - reward,
        stderr: Math.sqrt(variance / Math.max(1, rewards.length - 1)),
        ...{ bitsPerByte: Number.NaN, bitsPerByteStderr: Number.NaN },
        tokens: sum(answers.map(({ tokens }) => tokens)),
        bytes: sum(batches.map(({ bytes }) => bytes)),
        metrics: { reward, tokens_per_forward: tpf },
      }
    },

    async dispose() {
      await engine.dispose()
      await local.dispose()
    },
  }
}

const unused = (): never => {
  throw new Error('a policy trainer prepares its own batches')
}

/** Answers to one question with their advantages; none where all are worth the same. */
function withAdvantages(answers: readonly Written[]): { written: Written; advantage: number }[] {
  const average = mean(answers.map(({ reward }) => reward))
  const deviation = Math.sqrt(mean(answers.map(({ reward }) => (reward - average) ** 2)))
  if (deviation < 1e-6) return []
  return answers.map((written) => ({ written, advantage: (written.reward - average) / deviation }))
}

/** The answers as rows of batches. */
function packed(
  answers: readonly { written: Written; advantage: number }[],
  { rows, length, blockSize, eosTokenIds, tokenizer }: PolicyTrainerOptions,
): Batch[] {
  const batches: Batch[] = []
  for (let next = 0; next < answers.length; ) {
    const packer = createPacker({
      ...{ rows, length, blockSize, eosId: eosTokenIds[0]!, byteLength: (ids) => tokenizer.byteLength(ids) },
    })
    const starts: { start: number; written: Written; advantage: number }[] = []
    for (; next < answers.length; next++) {
      const { written, advantage } = answers[next]!
      const { ids, question } = written
      const maskable = Uint8Array.from(ids, (_, i) => (i < question.ids.length ? 0 : 1))
      const place = packer.placeTogether([{ id: question.id, ids: Int32Array.from(ids), maskable }])
      if (!place) break
      starts.push({ start: place[0]!, written, advantage })
    }
    if (starts.length === 0)
      throw new UserError(
        `an answer of ${answers[next]!.written.ids.length} tokens does not fit into rows of ${length}`,
      )
    const batch = packer.finish()
    const size = rows * length
    const rollouts = {
      steps: new Int32Array(size).fill(-1),
      nll: new Float32Array(size),
      advantages: new Float32Array(size),
    }
    for (const { start, written, advantage } of starts) {
      rollouts.steps.set(written.steps, start)
      rollouts.nll.set(written.nll, start)
      const from = written.question.ids.length
      for (let i = from; i < from + written.tokens; i++)
        if (written.steps[i]! < UNDECIDED) rollouts.advantages[start + i] = advantage
    }
    batches.push({ ...batch, rollouts })
  }
  return batches
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
const mean = (values: readonly number[]): number => sum(values) / Math.max(1, values.length)
