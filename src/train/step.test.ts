// The training step on a tiny Llama: determinism, accumulation, objectives, embedding noise, learning.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { logits } from '../../test/golden/logits.ts'
import { batch, hashOfThreeSteps, model, options, packed, weights } from '../../test/train/tiny.ts'
import { type Parameter, type TensorData, UserError } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { describe as describeProgram } from '../graph/program.ts'
import { createModel } from '../models/index.ts'
import { ar } from '../objectives/ar.ts'
import type { Variant } from '../objectives/index.ts'
import type { MicroBatch } from '../objectives/types.ts'
import type { Executor, Source } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from './graph.ts'
import { createStepper, type Stepper } from './stepper.ts'
import { createTrainer, type LocalTrainer, type TrainerOptions } from './trainer.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

async function withTrainer<T>(
  changes: Partial<TrainerOptions>,
  use: (trainer: LocalTrainer) => Promise<T>,
): Promise<T> {
  const trainer = await createTrainer(executor, model, weights(), { ...options, ...changes })
  try {
    return await use(trainer)
  } finally {
    await trainer.dispose()
  }
}

async function withStepper<T>(use: (stepper: Stepper) => Promise<T>): Promise<T> {
  const stepper = await createStepper(executor, model, weights(), options)
  try {
    return await use(stepper)
  } finally {
    await stepper.dispose()
  }
}

const step = { step: 0, blockSize: 4, learningRate: 1e-2, embeddingNoise: 0 }

/** Largest difference of any weight. */
function distance(a: ReadonlyMap<string, Parameter>, b: ReadonlyMap<string, Parameter>): number {
  let largest = 0
  for (const [name, { data }] of a)
    data.forEach((value, i) => {
      largest = Math.max(largest, Math.abs(value - (b.get(name) as Parameter).data[i]))
    })
  return largest
}

function joined(a: Batch, b: Batch): Batch {
  const concat = (x: Int32Array, y: Int32Array) => Int32Array.from([...x, ...y])
  return {
    rows: a.rows + b.rows,
    length: a.length,
    ids: concat(a.ids, b.ids),
    documents: concat(a.documents, b.documents),
    positions: concat(a.positions, b.positions),
    maskable: Uint8Array.from([...a.maskable, ...b.maskable]),
    padding: Uint8Array.from([...a.padding, ...b.padding]),
    documentIds: [],
    tokens: a.tokens + b.tokens,
    bytes: a.bytes + b.bytes,
  }
}

const int64 = (shape: number[], values: ArrayLike<number>): TensorData => ({
  dtype: 'int64',
  shape,
  data: BigInt64Array.from(Array.from(values, BigInt)),
})

/** Every second token masked; in `copies` copies, the last of them clean where there is a clean one. */
function microBatch(objective: Variant, source: Batch, copies: number): MicroBatch<Variant> {
  const { rows, length, ids, positions, documents } = source
  const size = rows * length
  const index = Array.from({ length: size / 2 }, (_, i) => 2 * i + 1)
  const noised = Array.from(ids, (id, i) => (i % 2 === 1 ? 23 : id))
  const repeated = (first: ArrayLike<number>, other: ArrayLike<number>) =>
    Array.from({ length: copies * size }, (_, i) => (i < size ? first[i] : other[i % size]))
  return {
    objective,
    rows,
    length,
    feeds: {
      input_ids: int64([copies * rows, length], repeated(noised, ids)),
      position_ids: int64([copies * rows, length], repeated(positions, positions)),
      document_ids: int64([rows, length], documents),
      loss_index: int64([index.length], index),
      labels: int64(
        [index.length],
        index.map((i) => ids[i]),
      ),
      loss_weights: {
        dtype: 'float32',
        shape: [index.length],
        data: new Float32Array(index.length).fill(1 / index.length),
      },
    },
  }
}

describe('the same seed gives the same bits', () => {
  it('twice in a process, and in a fresh one', async () => {
    const script = fileURLToPath(new URL('../../test/train/hash.ts', import.meta.url))
    const [here, again, fresh] = await Promise.all([
      hashOfThreeSteps(),
      hashOfThreeSteps(),
      promisify(execFile)(process.execPath, ['--import', 'tsx', script]),
    ])
    expect(again).toBe(here)
    expect(fresh.stdout.trim()).toBe(here)
  })

  it('after restoring weights and moments half way', async () => {
    const run = (trainer: LocalTrainer, from: number, to: number) =>
      (async () => {
        for (let i = from; i < to; i++) await trainer.step({ ...step, step: i, batches: [batch(i)] })
      })()
    const [middle, optimizer, expected] = await withTrainer({}, async (trainer) => {
      await run(trainer, 0, 2)
      const parameters = await trainer.parameters()
      const state = await trainer.optimizerState()
      await run(trainer, 2, 4)
      return [parameters, state, await trainer.parameters()] as const
    })
    expect(optimizer.step).toBe(2)
    const actual = await withTrainer({}, async (trainer) => {
      await trainer.fill({ parameters: middle, optimizer })
      await run(trainer, 2, 4)
      return trainer.parameters()
    })
    expect(distance(actual, expected)).toBe(0)
  })

  it('and another seed or step other noise', async () => {
    const loss = (changes: Partial<TrainerOptions>, at: number) =>
      withTrainer(changes, async (trainer) => (await trainer.step({ ...step, step: at, batches: [batch(1)] })).loss)
    const losses = [await loss({}, 0), await loss({}, 1), await loss({ seed: 6 }, 0)]
    expect(new Set(losses).size).toBe(3)
  })
})

describe('accumulation', () => {
  const row = (size: number, prompt: number) => packed(size, [size], { rows: 1, length: 32, blockSize: 8, prompt })
  // Completions of 3, 28 and 9 tokens.
  const rows = [row(29, 26), row(30, 2), row(12, 3)]
  const [first, second, third] = rows as [Batch, Batch, Batch]
  const splits = [[joined(joined(first, second), third)], [first, second, third], [joined(first, second), third]]

  it.each([
    ['ar', 'mean', 8],
    ['diffusion', 'mean', 8],
    ['diffusion', 'elbo', 8],
    ['diffusion', 'elbo', 1],
    ['diffusion', 'mean', 32],
    ['diffusion', 'elbo', 32],
  ] as const)(
    '%s, %s, block size %i: the same step whatever the micro-batches',
    async (objective, weighting, blockSize) => {
      const noise = { copies: 2, complementary: true }
      const results = []
      for (const batches of splits)
        results.push(
          await withTrainer({ objective, weighting, noise }, async (trainer) => {
            const result = await trainer.step({ ...step, blockSize, batches, embeddingNoise: 0.1 })
            // After one update the first moment is a tenth of the clipped gradient.
            return { ...result, moments: (await trainer.optimizerState()).tensors }
          }),
        )
      const [together, ...others] = results
      for (const apart of others) {
        expect(apart.loss).toBeCloseTo(together!.loss, 5)
        expect(apart.gradNorm / together!.gradNorm).toBeCloseTo(1, 4)
        expect(Object.keys(apart.metrics)).toEqual(Object.keys(together!.metrics))
        for (const [name, value] of Object.entries(together!.metrics))
          expect(apart.metrics[name], name).toBeCloseTo(value as number, 5)
        expect(distance(apart.moments, together!.moments)).toBeLessThan(1e-6)
      }
    },
  )

  it('divides by the count that it gets for the step, so that others may take part in it', () =>
    withStepper(async (stepper) => {
      const prepared = ar.prepare(first, { seed: 0, step: 0, row: 0 }, {})
      const counts = prepared.counts!
      const alone = await stepper.update([prepared], 0)
      const shared = await stepper.update([prepared], 0, { ...counts, loss: 4 * counts.loss })
      expect(shared.loss).toBeCloseTo(alone.loss / 4, 6)
      expect(shared.gradNorm).toBeCloseTo(alone.gradNorm / 4, 6)
    }))
})

describe('padding', () => {
  const source = packed(3, [13, 10], { rows: 1, length: 32, blockSize: 8 })

  it('has a loss of its own: the loss is the mean over both, or leaves padding out where it is not supervised', async () => {
    for (const weighting of ['elbo', 'mean'] as const) {
      const noise = { noiseRangeLow: 1 }
      const { loss, metrics } = await withTrainer({ noise, weighting }, (trainer) =>
        trainer.step({ ...step, batches: [source] }),
      )
      const [text, padding] = [23, 9]
      expect(metrics.loss_positions).toBe(text + padding)
      const parts = [text * Number(metrics.text_loss), padding * Number(metrics.padding_loss)]
      expect((parts[0]! + parts[1]!) / (text + padding)).toBeCloseTo(loss, 5)
      // All is masked, so that the model sees the same in both.
      const unsupervised = await withTrainer({ noise: { ...noise, supervisePadding: false }, weighting }, (trainer) =>
        trainer.step({ ...step, batches: [source] }),
      )
      expect(unsupervised.loss).toBeCloseTo(Number(metrics.text_loss), 5)
      expect(unsupervised.metrics).toEqual({
        loss_positions: text,
        text_loss: expect.closeTo(unsupervised.loss, 5),
      })
    }
  })
})

describe('weight decay', () => {
  it('acts on matrices, not on norms and embeddings', () =>
    withTrainer({ weightDecay: 0.5, objective: 'ar' }, async (trainer) => {
      const empty = batch(1)
      empty.maskable.fill(0)
      const learningRate = 0.1
      await trainer.step({ ...step, batches: [empty], learningRate })
      for (const [name, { shape, data }] of await trainer.parameters()) {
        const before = weights().get(name)!.data
        const factor = shape.length === 1 || name === model.embeddingName ? 1 : 1 - 0.5 * learningRate
        for (const [i, value] of data.entries()) expect(value, name).toBeCloseTo(factor * before[i]!, 6)
      }
    }))
})

describe('objectives', () => {
  it('complementary copies carry loss at every token exactly once', () =>
    withTrainer({ noise: { copies: 2, complementary: true } }, async (trainer) => {
      const source = batch(1)
      const { metrics, loss } = await trainer.step({ ...step, batches: [source] })
      expect(metrics.loss_positions).toBe(source.tokens)
      expect(loss).toBeGreaterThan(0)
    }))

  it('BDLM whose block is the whole row is MDLM: the clean copy has no say', async () => {
    const source = batch(3, { split: 16 })
    const updated = (objective: Variant, copies: number) =>
      withStepper(async (stepper) => {
        const result = await stepper.update([microBatch(objective, source, copies)], 1e-2)
        return { ...result, parameters: await stepper.parameters() }
      })
    const bdlm = await updated({ kind: 'bdlm', blockSize: 16, copies: 1, aligned: true }, 2)
    const mdlm = await updated({ kind: 'mdlm', copies: 1 }, 1)
    expect(bdlm.loss).toBeCloseTo(mdlm.loss, 5)
    expect(bdlm.gradNorm).toBeCloseTo(mdlm.gradNorm, 5)
    expect(distance(bdlm.parameters, mdlm.parameters)).toBeLessThan(1e-5)
  })

  it('BDLM gives the same whether its tiles are blocks or the row', async () => {
    const source = batch(3, { length: 32, split: 16 })
    const nll = (aligned: boolean) =>
      withStepper((stepper) => stepper.nll(microBatch({ kind: 'bdlm', blockSize: 8, copies: 1, aligned }, source, 2)))
    const [tiled, whole] = [await nll(true), await nll(false)]
    for (const [i, value] of tiled.entries()) expect(value).toBeCloseTo(whole[i], 5)
  })

  it('AR is the mean negative log-likelihood of each next token within its document', async () => {
    const source = batch(4)
    const { rows, length, ids, documents } = source
    const all = await logits(executor, model, weights(), 'causal', {
      rows,
      length,
      ids,
      // The reference counts positions from the row's start, so the batch is one document per row.
      documents: new Int32Array(documents.length),
    })
    const vocabulary = model.dimensions.vocabSize
    let total = 0
    let tokens = 0
    for (let i = 0; i < ids.length; i++) {
      if (i % length === length - 1) continue
      const row = all.subarray(i * vocabulary, (i + 1) * vocabulary)
      total += Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[ids[i + 1]]
      tokens++
    }
    const whole = {
      ...source,
      documents: new Int32Array(ids.length),
      positions: ids.map((_, i) => i % length),
    }
    await withTrainer({ objective: 'ar', maskTokenId: undefined }, async (trainer) => {
      const evaluation = await trainer.evaluate([whole], { blockSize: 'ar', seed: 0 })
      expect(evaluation.tokens).toBe(tokens)
      expect(evaluation.nll).toBeCloseTo(total / tokens, 4)
      const { loss, metrics } = await trainer.step({ ...step, batches: [whole] })
      expect(metrics.loss_positions).toBe(tokens)
      expect(loss).toBeCloseTo(total / tokens, 4)
    })
  })

  it('AR counts no token across a document, in a prompt or in the tail', async () => {
    const source = batch(4)
    // Row 0: the first document's prompt is 3 tokens; row 1: its second document is a tail.
    source.maskable.fill(0, 0, 3)
    source.documents.fill(-1, 24, 32)
    source.maskable.fill(0, 24, 32)
    await withTrainer({ objective: 'ar' }, async (trainer) => {
      const { tokens } = await trainer.evaluate([source], { blockSize: 'ar', seed: 0 })
      expect(tokens).toBe(8 - 3 + 7 + 7)
    })
  })

  it('nothing masked is a loss of 0 and no gradient', async () => {
    const source = batch(1)
    source.maskable.fill(0)
    await withTrainer({}, async (trainer) => {
      const { loss, gradNorm, metrics } = await trainer.step({ ...step, batches: [source] })
      expect([loss, gradNorm, metrics.loss_positions]).toEqual([0, 0, 0])
    })
  })

  it('evaluation changes nothing, and depends on its seed alone', () =>
    withTrainer({}, async (trainer) => {
      const before = await trainer.parameters()
      const evaluate = (seed: number, samples: number) =>
        trainer.evaluate([batch(1), batch(2)], { blockSize: 4, seed, samples })
      const first = await evaluate(1, 2)
      // All but the first tokens of two documents in each of two rows.
      expect(first.tokens).toBe(2 * (32 - 4))
      expect(first.stderr).toBeGreaterThan(0)
      expect(await evaluate(1, 2)).toEqual(first)
      expect((await evaluate(2, 2)).nll).not.toBe(first.nll)
      expect(distance(await trainer.parameters(), before)).toBe(0)
    }))
})

describe('embedding noise', () => {
  const loss = (embeddingNoise: number) =>
    withTrainer({}, async (trainer) => (await trainer.step({ ...step, embeddingNoise, batches: [batch(1)] })).loss)

  it('changes the loss, more the larger it is, and the same each time', async () => {
    const [none, little, much] = [await loss(0), await loss(1e-3), await loss(1)]
    expect(little).not.toBe(none)
    expect(Math.abs(little - none)).toBeLessThan(Math.abs(much - none))
    expect(await loss(1)).toBe(much)
  })

  it('is normal at masked positions and 0 elsewhere', async () => {
    let feeds: Record<string, Source> = {}
    const watched: Executor = {
      ...executor,
      async load(...args) {
        const session = await executor.load(...args)
        return {
          ...session,
          run(given, ...rest) {
            if ('embedding_noise' in given) feeds = given
            return session.run(given, ...rest)
          },
        }
      },
    }
    const trainer = await createTrainer(watched, model, weights(), options)
    await trainer.step({ ...step, embeddingNoise: 0.5, batches: [batch(1)] })
    await trainer.dispose()
    const ids = Array.from((feeds.input_ids as TensorData).data, Number)
    const noise = (feeds.embedding_noise as TensorData).data as Float32Array
    const width = model.dimensions.hiddenSize
    const seen: number[] = []
    ids.forEach((id, i) => {
      const row = noise.subarray(i * width, (i + 1) * width)
      if (id === options.maskTokenId) seen.push(...row)
      else expect([...row]).toEqual(new Array(width).fill(0))
    })
    expect(seen.length).toBeGreaterThan(8 * width)
    const deviation = Math.sqrt(seen.reduce((sum, x) => sum + x * x, 0) / seen.length)
    expect(deviation).toBeGreaterThan(0.4)
    expect(deviation).toBeLessThan(0.6)
  })
})

describe('learning', () => {
  it('drives the next-token loss of a small batch to 0', () =>
    withTrainer({ objective: 'ar' }, async (trainer) => {
      const batches = [batch(1, { rows: 1 })]
      for (let i = 0; i < 120; i++) await trainer.step({ ...step, step: i, batches, learningRate: 1e-2 })
      expect((await trainer.evaluate(batches, { blockSize: 'ar', seed: 0 })).nll).toBeLessThan(0.02)
    }))

  for (const [name, blockSize] of [
    ['BDLM', 4],
    ['MDLM', 16],
  ] as const)
    it(`drives the ELBO of a small batch under ${name} to 0`, () =>
      withTrainer({ noise: { copies: 2, complementary: true }, weighting: 'mean', weightDecay: 0 }, async (trainer) => {
        const source = batch(1, { rows: 1, split: 16 })
        // A prompt: mask tokens alone do not show their positions under a rotary embedding.
        source.maskable.fill(0, 0, 4)
        const batches = [source]
        for (let i = 0; i < 250; i++) await trainer.step({ ...step, blockSize, step: i, batches })
        const { nll } = await trainer.evaluate(batches, { blockSize, seed: 0, samples: 8 })
        expect(nll).toBeLessThan(0.05)
      }))

  it('scales gradients down to the largest norm allowed', async () => {
    // The first moment after one step is (1 - beta1) times the clipped gradient.
    const moments = (maxGradNorm: number) =>
      withTrainer({ maxGradNorm }, async (trainer) => {
        const { gradNorm } = await trainer.step({ ...step, batches: [batch(1)] })
        let squares = 0
        for (const [name, { data }] of (await trainer.optimizerState()).tensors)
          if (name.startsWith('exp_avg.')) for (const value of data) squares += (value / 0.1) ** 2
        return { gradNorm, seen: Math.sqrt(squares) }
      })
    const free = await moments(0)
    expect(free.seen / free.gradNorm).toBeCloseTo(1, 4)
    const clipped = await moments(free.gradNorm / 4)
    expect(clipped.gradNorm).toBe(free.gradNorm)
    expect(clipped.seen / free.gradNorm).toBeCloseTo(1 / 4, 4)
  })
})

describe('what cannot be trained', () => {
  it('a loss that is no number is returned and changes nothing', () =>
    withStepper(async (stepper) => {
      const before = await stepper.parameters()
      const broken = microBatch({ kind: 'mdlm', copies: 1 }, batch(1), 1)
      broken.feeds.loss_weights = { ...(broken.feeds.loss_weights as TensorData), data: new Float32Array(16).fill(NaN) }
      const { loss, gradNorm } = await stepper.update([broken], 1e-2)
      expect([loss, gradNorm]).toEqual([NaN, NaN])
      expect(distance(await stepper.parameters(), before)).toBe(0)
      expect((await stepper.optimizerState()).step).toBe(0)
    }))

  it('diffusion without a mask token', () =>
    withTrainer({ maskTokenId: undefined }, async (trainer) => {
      await expect(trainer.step({ ...step, batches: [batch(1)] })).rejects.toThrow(UserError)
    }))

  it('weights that are missing or of another shape', async () => {
    const name = 'model.norm.weight'
    const without = new Map([...weights()].filter(([other]) => other !== name))
    await expect(createTrainer(executor, model, without, options)).rejects.toThrow(`tensor ${name} is missing`)
    const other = weights().set(name, { shape: [3], data: new Float32Array(3) })
    await expect(createTrainer(executor, model, other, options)).rejects.toThrow(
      `tensor ${name} has shape [3], the model needs [16]`,
    )
  })
})

describe('gradient checkpointing', () => {
  it('changes memory, not a bit of the weights', async () => {
    const run = (gradientCheckpointing: boolean) =>
      withTrainer({ gradientCheckpointing }, async (trainer) => {
        for (let i = 0; i < 2; i++) await trainer.step({ ...step, step: i, batches: [batch(1)] })
        return trainer.parameters()
      })
    expect(distance(await run(true), await run(false))).toBe(0)
  })

  it('recomputes the layers of a model that calls them otherwise', () => {
    const llada = createModel({
      model_type: 'llada',
      vocab_size: 8,
      d_model: 8,
      n_layers: 2,
      n_heads: 2,
      mlp_hidden_size: 8,
    })
    const checkpointing = { gradients: true, gradientCheckpointing: true }
    const program = objectiveProgram(llada, { kind: 'mdlm', copies: 1 }, { rows: 1, length: 4 }, checkpointing)
    expect(describeProgram(program)).toContain('recompute.model.transformer.blocks.0.mlp: swiglu')
  })
})
