// A list of tiles gives the loss and the gradients that whole rows give.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { model, packed, weights } from '../../test/train/tiny.ts'
import { random } from '../core/random.ts'
import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from '../train/graph.ts'
import { bdlm } from './bdlm.ts'
import type { DenoisingSettings } from './denoising.ts'
import { objectiveAt, type Variant } from './index.ts'
import { mdlm } from './mdlm.ts'
import { tiles } from './tiles.ts'
import type { MicroBatch } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const parameters = Object.fromEntries(
  [...weights()].map(([name, { shape, data }]): [string, TensorData] => [name, { dtype: 'float32', shape, data }]),
)

async function outputs({ objective, rows, length, feeds }: MicroBatch<Variant>, gradients: boolean, again = false) {
  const program = objectiveProgram(model, objective, { rows, length }, { gradients, gradientCheckpointing: again })
  const session = await executor.load(program, { optimize: false })
  try {
    const names = Object.keys(program.outputs)
    return await session.run({ ...feeds, ...parameters }, Object.fromEntries(names.map((name) => [name, null])))
  } finally {
    await session.release()
  }
}

/** Of every output the largest difference, in units of its largest value. */
function differences(a: Record<string, TensorData>, b: Record<string, TensorData>): Record<string, number> {
  expect(Object.keys(a)).toEqual(Object.keys(b))
  return Object.fromEntries(
    Object.entries(a).map(([name, { data }]) => {
      const other = b[name]!.data
      expect(data.length).toBe(other.length)
      let [worst, largest] = [0, 1e-6]
      for (let i = 0; i < data.length; i++) {
        worst = Math.max(worst, Math.abs(Number(data[i]) - Number(other[i])))
        largest = Math.max(largest, Math.abs(Number(other[i])))
      }
      return [name, worst / largest]
    }),
  )
}

const base: DenoisingSettings = {
  maskTokenId: 23,
  weighting: 'elbo',
  noise: {},
  finalBlockSize: 8,
  blockSize: 8,
  hiddenSize: 16,
  embeddingNoise: 0,
}

/** Documents of random lengths, each with a prompt of its own length; rows that are not full end in a tail. */
function documents(seed: number, { rows, length, prompts }: { rows: number; length: number; prompts: boolean }): Batch {
  const draw = random(seed, 0x64)
  const lengths = Array.from({ length: 2 * rows }, () => 1 + draw.integer(length / 2))
  const batch = packed(seed, lengths, { rows, length, blockSize: 8 })
  if (!prompts) return batch
  let prompt = 0
  const maskable = batch.maskable.map((flag, i) => {
    if (batch.positions[i] === 0) prompt = draw.integer(length / 2)
    return batch.padding[i] === 0 && batch.positions[i]! < prompt ? 0 : flag
  })
  return { ...batch, maskable }
}

const cases = fc.record({
  seed: fc.nat(10_000),
  rows: fc.integer({ min: 1, max: 3 }),
  length: fc.constantFrom(16, 32, 64),
  prompts: fc.boolean(),
  blockSize: fc.constantFrom(1, 2, 4, 8),
  copies: fc.constantFrom(1, 2, 4),
  complementary: fc.boolean(),
  supervisePadding: fc.boolean(),
  shift: fc.boolean(),
  noiseRangeHigh: fc.constantFrom(0.1, 1),
  embeddingNoise: fc.constantFrom(0, 0.5),
  confidence: fc.constantFrom(undefined, { beta: 2, temperature: 0.5 }),
})
type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never

const settingsOf = ({ copies, complementary, supervisePadding, noiseRangeHigh, ...rest }: Case): DenoisingSettings => ({
  ...base,
  blockSize: rest.blockSize,
  shift: rest.shift,
  embeddingNoise: rest.embeddingNoise,
  confidence: rest.confidence,
  noise: { copies, complementary: complementary && copies > 1, supervisePadding, noiseRangeHigh },
})

describe('tiles of block diffusion', () => {
  it('give the loss, its parts and all gradients of whole rows', () =>
    fc.assert(
      fc.asyncProperty(cases, async (drawn) => {
        const batch = documents(drawn.seed, drawn)
        const settings = settingsOf(drawn)
        const at = { seed: drawn.seed, step: 3, row: 5 }
        const whole = { ...settings, finalBlockSize: 3 }
        const [listed, rows] = [tiles.prepare(batch, at, settings), bdlm.prepare(batch, at, whole)]
        expect(listed.counts).toEqual(rows.counts)
        const worst = differences(await outputs(listed, true), await outputs(rows, true))
        for (const [name, difference] of Object.entries(worst)) expect(difference, name).toBeLessThan(2e-4)
      }),
      { numRuns: 24, seed: 3 },
    ))

  it('give the likelihoods of whole rows', async () => {
    const batch = documents(4, { rows: 3, length: 32, prompts: true })
    const draws = { seed: 1, pairs: 2, row: 7 }
    const listed = tiles.measure(batch, draws, base)
    const rows = bdlm.measure(batch, draws, { ...base, finalBlockSize: 3 })
    for (const [i, { microBatch, tiles }] of listed.entries()) {
      expect(tiles).toEqual(rows[i]!.tiles)
      const weighted = async (of: MicroBatch<Variant>) => {
        const { data } = of.feeds.loss_weights as TensorData
        const { nll } = await outputs(of, false)
        return {
          nll: {
            ...nll!,
            data: Float32Array.from(nll!.data as Float32Array, (value, j) => Number(value) * Number(data[j])),
          },
        }
      }
      expect(differences(await weighted(microBatch), await weighted(rows[i]!.microBatch)).nll).toBeLessThan(1e-4)
    }
  })

  it('give the same bits where layers are computed again in the backward pass', async () => {
    const batch = documents(5, { rows: 2, length: 32, prompts: true })
    const microBatch = tiles.prepare(batch, { seed: 1, step: 0, row: 0 }, base)
    expect(await outputs(microBatch, true, true)).toEqual(await outputs(microBatch, true))
  })

  it('give a loss of 0 and no gradient where nothing is masked', async () => {
    const batch = documents(6, { rows: 2, length: 32, prompts: false })
    const nothing = { ...batch, maskable: batch.maskable.map(() => 0) }
    const values = await outputs(tiles.prepare(nothing, { seed: 1, step: 0, row: 0 }, base), true)
    for (const [name, { data }] of Object.entries(values)) expect(Math.max(...Array.from(data, Number)), name).toBe(0)
  })

  it('one program serves batches of different numbers of tiles', async () => {
    const drawn = [1, 2, 3].map((seed) =>
      tiles.prepare(documents(seed, { rows: 2, length: 64, prompts: true }), { seed, step: 0, row: 0 }, base),
    )
    expect(new Set(drawn.map(({ feeds }) => (feeds.input_ids as TensorData).shape[0])).size).toBeGreaterThan(1)
    expect(new Set(drawn.map(({ objective }) => JSON.stringify(objective))).size).toBe(1)
    const program = objectiveProgram(model, drawn[0]!.objective, { rows: 2, length: 64 }, { gradients: false })
    const session = await executor.load(program, { optimize: false })
    for (const microBatch of drawn) {
      const { loss } = await session.run({ ...microBatch.feeds, ...parameters }, { loss: null })
      expect(loss!.data).toEqual((await outputs(microBatch, false)).loss!.data)
    }
    await session.release()
  })

  it('are what block diffusion computes where documents start at multiples of the block size', () => {
    expect(objectiveAt('diffusion', { ...base, finalBlockSize: 32 }, 64)).toBe(tiles)
    expect(objectiveAt('diffusion', { ...base, blockSize: 32 }, 64)).toBe(bdlm)
    expect(objectiveAt('diffusion', { ...base, blockSize: 64 }, 64)).toBe(mdlm)
  })
})
