import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { pairedBatch, pairs } from '../../test/paired-batch.ts'
import { pairBatches } from '../data/pairs.ts'
import { isScored } from '../data/scored.ts'
import type { Batch } from '../data/types.ts'
import { lossPositions, noisedIds } from './loss-positions.ts'
import { drawBound, drawNoise, drawPairs, minimumMaskRatio, type NoiseOptions } from './noise.ts'

/** A packed batch: per row, documents as [prompt, completion] lengths, one after the other; the rest is the tail. */
function packedBatch(rows: readonly (readonly (readonly [number, number])[])[], length: number): Batch {
  const size = rows.length * length
  const batch: Batch = {
    rows: rows.length,
    length,
    ids: Int32Array.from({ length: size }, (_, i) => (i * 7 + 3) % 50),
    documents: new Int32Array(size).fill(-1),
    positions: new Int32Array(size),
    maskable: new Uint8Array(size),
    padding: new Uint8Array(size),
    documentIds: [],
    tokens: 0,
    bytes: 0,
  }
  for (const [row, documents] of rows.entries()) {
    let at = row * length
    for (const [document, [prompt, completion]] of documents.entries()) {
      for (let position = 0; position < prompt + completion && at < (row + 1) * length; position++, at++) {
        batch.documents[at] = document
        batch.positions[at] = position
        batch.maskable[at] = position >= prompt ? 1 : 0
        batch.tokens++
      }
    }
  }
  return batch
}

const batches = fc
  .record({
    length: fc.constantFrom(8, 16, 32),
    rows: fc.array(fc.array(fc.tuple(fc.nat(9), fc.nat(20)), { maxLength: 4 }), { minLength: 1, maxLength: 3 }),
  })
  .map(({ rows, length }) => packedBatch(rows, length))

const noiseOptions: fc.Arbitrary<NoiseOptions & { blockSize: number }> = fc
  .record({
    blockSize: fc.constantFrom(1, 2, 4, 8, 64),
    pairs: fc.integer({ min: 1, max: 2 }),
    complementary: fc.boolean(),
    band: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0.01, max: 1, noNaN: true })),
    perBlock: fc.boolean(),
    positionDependent: fc.constantFrom(0, 1.5),
  })
  .map(({ pairs, band, ...rest }) => ({
    ...rest,
    copies: rest.complementary ? 2 * pairs : pairs,
    noiseRangeLow: Math.min(...band),
    noiseRangeHigh: Math.max(...band),
  }))

const counters = fc.record({ seed: fc.nat(), step: fc.nat(), row: fc.nat(7) })

describe('drawNoise', () => {
  it('masks maskable tokens only, keeps t constant within a block or document, and repeats itself', () => {
    fc.assert(
      fc.property(batches, noiseOptions, counters, (batch, options, draw) => {
        const noise = drawNoise(batch, { ...options, ...draw })
        expect(drawNoise(batch, { ...options, ...draw })).toEqual(noise)
        const size = batch.rows * batch.length
        const ratios = new Map<string, number>()
        for (let i = 0; i < noise.masked.length; i++) {
          const at = i % size
          if (batch.maskable[at] === 0) expect(noise.masked[i]).toBe(0)
          if (batch.documents[at]! < 0) {
            expect(noise.t[i]).toBe(0)
            continue
          }
          const block = options.perBlock ? Math.floor(batch.positions[at]! / options.blockSize) : 0
          const key = [Math.floor(i / size), Math.floor(at / batch.length), batch.documents[at], block].join()
          if (!ratios.has(key)) ratios.set(key, noise.t[i]!)
          expect(noise.t[i]).toBe(ratios.get(key))
          expect(noise.t[i]).toBeGreaterThan(minimumMaskRatio * 0.999)
          expect(noise.t[i]).toBeLessThanOrEqual(1)
        }
      }),
    )
  })

  it('hides every maskable token exactly once in a complementary pair, with ratios that sum to 1', () => {
    fc.assert(
      fc.property(batches, noiseOptions, counters, (batch, options, draw) => {
        const noise = drawNoise(batch, { ...options, ...draw, copies: 4, complementary: true })
        const size = batch.rows * batch.length
        for (const first of [0, 2 * size]) {
          for (let i = first; i < first + size; i++) {
            expect(noise.masked[i]! + noise.masked[i + size]!).toBe(batch.maskable[i - first])
            if (batch.documents[i - first]! >= 0) expect(noise.t[i]! + noise.t[i + size]!).toBeCloseTo(1, 6)
          }
        }
      }),
    )
  })

  const long = packedBatch(
    Array.from({ length: 8 }, () => [[0, 512]] as const),
    512,
  )
  const fresh = { seed: 5, step: 9, row: 0 }

  it('draws t uniformly over the band, per block, and masks with that probability', () => {
    const noise = drawNoise(long, { ...fresh, blockSize: 8, noiseRangeLow: 0.3, noiseRangeHigh: 0.8 })
    const ratios = Array.from({ length: 512 }, (_, block) => noise.t[block * 8]!)
    expect(Math.min(...ratios)).toBeGreaterThanOrEqual(Math.fround(0.3))
    expect(Math.max(...ratios)).toBeLessThanOrEqual(Math.fround(0.8))
    expect(new Set(ratios).size).toBeGreaterThan(500)
    expect(mean(ratios)).toBeCloseTo(0.55, 1)
    for (const [from, to] of [
      [0.3, 0.4],
      [0.5, 0.6],
      [0.7, 0.8],
    ] as const) {
      const inside = [...noise.masked].filter((_, i) => noise.t[i]! >= from && noise.t[i]! < to)
      expect(Math.abs(mean(inside) - (from + to) / 2)).toBeLessThan(0.06)
    }
  })

  it('draws one t per document for MDLM, and when asked for', () => {
    for (const options of [{ blockSize: 512 }, { blockSize: 8, perBlock: false }]) {
      const noise = drawNoise(long, { ...fresh, ...options })
      expect(new Set(noise.t).size).toBe(8)
    }
  })

  it('draws other masks for another seed, step, row or copy', () => {
    const reference = drawNoise(long, { ...fresh, blockSize: 8, copies: 2 })
    const size = long.rows * long.length
    expect(reference.masked.slice(0, size)).not.toEqual(reference.masked.slice(size))
    expect(drawNoise(long, { ...fresh, blockSize: 8 }).masked).toEqual(reference.masked.slice(0, size))
    for (const change of [{ seed: 6 }, { step: 10 }, { row: 8 }]) {
      expect(drawNoise(long, { ...fresh, blockSize: 8, copies: 2, ...change }).masked).not.toEqual(reference.masked)
    }
  })

  it('masks every token at block size 1, where the ratio does not matter', () => {
    expect(drawNoise(long, { ...fresh, blockSize: 1 }).masked).toEqual(long.maskable)
    expect(new Set(drawNoise(long, { ...fresh, blockSize: 1, copies: 2, complementary: true }).t)).toEqual(
      new Set([0.5]),
    )
  })

  it('takes the length of the document for position-dependent masking of whole documents', () => {
    const short = packedBatch(
      [
        [
          [0, 8],
          [0, 20],
        ],
      ],
      64,
    )
    const { elboWeight, t } = drawNoise(short, { ...fresh, blockSize: 64, positionDependent: 2 })
    const exponent = (i: number) => elboWeight![i]! * t[i]!
    for (let i = 0; i < 8; i++) expect(exponent(i)).toBeCloseTo(Math.exp(2 * (0.5 - (i + 0.5) / 8)), 5)
    for (let i = 0; i < 20; i++) expect(exponent(8 + i)).toBeCloseTo(Math.exp(2 * (0.5 - (i + 0.5) / 20)), 5)
  })

  it('masks padding as text, or always where it is not supervised', () => {
    const padded = packedBatch([[[2, 500]]], 512)
    padded.padding.fill(1, 200, 502)
    const options = {
      ...fresh,
      blockSize: 512,
      copies: 2,
      complementary: true,
      noiseRangeLow: 0.5,
      noiseRangeHigh: 0.5,
    }
    const share = (masked: Uint8Array) => mean([...masked.slice(200, 502), ...masked.slice(712, 1014)])
    expect(share(drawNoise(padded, options).masked)).toBeCloseTo(0.5, 6)
    const always = drawNoise(padded, { ...options, supervisePadding: false })
    expect(share(always.masked)).toBe(1)
    expect(always.masked.slice(0, 200)).toEqual(drawNoise(padded, options).masked.slice(0, 200))
  })

  it('rejects options that contradict each other', () => {
    const batch = packedBatch([[[0, 8]]], 8)
    expect(() => drawNoise(batch, { ...fresh, blockSize: 4, copies: 3, complementary: true })).toThrow(/even/)
    expect(() => drawNoise(batch, { ...fresh, blockSize: 4, noiseRangeLow: 0.9, noiseRangeHigh: 0.2 })).toThrow(/low/)
    expect(() => drawNoise(batch, { ...fresh, blockSize: 0 })).toThrow(/block_size/)
    expect(() => drawNoise(batch, { ...fresh, blockSize: 4, copies: 0 })).toThrow(/copies/)
    expect(() => drawNoise(batch, { ...fresh, blockSize: 4, positionDependent: -1 })).toThrow(/position_dependent/)
  })
})

describe('drawBound', () => {
  const strata = fc.constantFrom(1, 2, 4)

  it('masks a number of scored tokens of every block that its stratum has, and all padding', () => {
    fc.assert(
      fc.property(batches, fc.constantFrom(1, 4, 8, 64), strata, fc.nat(), (batch, blockSize, strata, seed) => {
        for (let i = 0; i < batch.padding.length; i++)
          batch.padding[i] = batch.documents[i]! >= 0 && i % 11 === 10 ? 1 : 0
        const size = batch.rows * batch.length
        for (let stratum = 0; stratum < strata; stratum++) {
          const noise = drawBound(batch, { blockSize, strata, stratum, seed, row: 0 })
          const blocks = new Map<string, { scored: number; masked: number; t: number }>()
          for (let i = 0; i < 2 * size; i++) {
            const at = i % size
            if (!isScored(batch, at)) {
              expect(noise.masked[i]).toBe(batch.padding[at])
              continue
            }
            const start = at - (batch.positions[at]! % blockSize)
            const key = `${Math.floor(i / size)} ${start}`
            const block = blocks.get(key) ?? { scored: 0, masked: 0, t: noise.t[i]! }
            blocks.set(key, { scored: block.scored + 1, masked: block.masked + noise.masked[i]!, t: noise.t[i]! })
            expect(noise.t[i]).toBe(block.t)
          }
          for (const { scored, masked, t } of blocks.values()) {
            expect(t).toBe(Math.fround(masked / scored))
            expect(masked).toBeGreaterThanOrEqual(1 + Math.floor((scored * stratum) / strata))
            expect(masked).toBeLessThanOrEqual(1 + Math.floor((scored * (stratum + 1)) / strata))
          }
        }
      }),
    )
  })

  it('masks each number of tokens, and each token, equally often', () => {
    const text = packedBatch([[[1, 4]]], 8)
    const counts = new Array<number>(5).fill(0)
    const tokens = new Array<number>(5).fill(0)
    for (let seed = 0; seed < 1000; seed++) {
      const { masked } = drawBound(text, { blockSize: 8, strata: 1, stratum: 0, seed, row: 0 })
      for (const copy of [masked.slice(0, 5), masked.slice(8, 13)]) {
        counts[copy.reduce((a, b) => a + b)]!++
        copy.forEach((flag, i) => {
          tokens[i]! += flag
        })
      }
    }
    for (const count of counts.slice(1)) expect(Math.abs(count / 500 - 1)).toBeLessThan(0.15)
    for (const count of tokens.slice(1)) expect(Math.abs(count / 1250 - 1)).toBeLessThan(0.1)
    expect([counts[0], tokens[0]]).toEqual([0, 0])
  })
})

describe('lossPositions', () => {
  it('estimates the same negative ELBO, without bias, whatever the copies and the masking', () => {
    // With a constant nll of 1 the negative ELBO is 1: the weights must sum to 1 in expectation.
    const batch = packedBatch(
      Array.from({ length: 4 }, () => [[0, 256]] as const),
      256,
    )
    for (const options of [
      { copies: 1 },
      { copies: 3 },
      { copies: 2, complementary: true },
      { copies: 1, positionDependent: 1.5 },
      { copies: 2, complementary: true, positionDependent: 1.5 },
    ]) {
      const sums = Array.from({ length: 60 }, (_, step) => {
        const noise = drawNoise(batch, { ...options, blockSize: 8, seed: 3, step, row: 0 })
        const { weights } = lossPositions(noise, batch, batch.maskable, 'elbo')
        return weights.reduce((sum, weight) => sum + weight, 0) / (options.copies * batch.tokens)
      })
      expect(Math.abs(mean(sums) - 1)).toBeLessThan(0.05)
    }
  })

  it('is exact at block size 1', () => {
    const batch = packedBatch([[[5, 20]], [[0, 9]]], 32)
    for (const options of [{ copies: 1 }, { copies: 2, complementary: true }]) {
      const noise = drawNoise(batch, { ...options, blockSize: 1, seed: 1, step: 0, row: 0 })
      const { weights, labels } = lossPositions(noise, batch, batch.maskable, 'elbo')
      const tokens = batch.maskable.filter((flag) => flag === 1).length
      expect(labels.length).toBe(tokens)
      for (const weight of weights) expect(weight / (options.copies * tokens)).toBeCloseTo(1 / tokens, 6)
    }
  })

  it('points at the masked positions, in order, with the clean tokens as labels', () => {
    fc.assert(
      fc.property(batches, noiseOptions, counters, (batch, options, draw) => {
        const noise = drawNoise(batch, { ...options, ...draw })
        const noised = noisedIds(batch.ids, noise, 99)
        const { index, labels, weights } = lossPositions(noise, batch, batch.maskable, 'mean')
        const restored = noised.slice()
        for (const [at, flat] of index.entries()) restored[flat] = labels[at]!
        expect([...noised.keys()].filter((i) => noised[i] === 99)).toEqual([...index])
        for (let i = 0; i < restored.length; i++) expect(restored[i]).toBe(batch.ids[i % batch.ids.length])
        expect(weights).toEqual(new Float32Array(index.length).fill(1))
        const elbo = lossPositions(noise, batch, batch.maskable, 'elbo')
        for (const weight of elbo.weights) expect(Number.isFinite(weight)).toBe(true)
      }),
    )
  })

  it('is empty where nothing is masked', () => {
    const batch = packedBatch([[[8, 0]]], 8)
    const noise = drawNoise(batch, { blockSize: 4, seed: 1, step: 1, row: 0 })
    for (const weighting of ['elbo', 'mean'] as const) {
      expect(lossPositions(noise, batch, batch.maskable, weighting).index.length).toBe(0)
    }
  })

  it('refuses noise of another batch', () => {
    const batch = packedBatch([[[0, 8]]], 8)
    const noise = drawNoise(batch, { blockSize: 4, seed: 1, step: 1, row: 0 })
    expect(() => lossPositions(noise, packedBatch([[[0, 8]]], 16), batch.maskable, 'mean')).toThrow(/positions/)
  })
})

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

describe('drawPairs', () => {
  const batch = pairedBatch({ length: 16, blockSize: 4 })
  const size = batch.rows * batch.length
  const scored = Array.from({ length: size }, (_, i) => i).filter((i) => isScored(batch, i))

  it.each([
    [1, false],
    [4, false],
    [2, true],
    [4, true],
  ])('weighs every scored token 1 on average: %i draws, antithetic %s', (draws, antithetic) => {
    const seeds = 3000
    const totals = new Float64Array(size)
    for (let seed = 0; seed < seeds; seed++) {
      const { masked, t } = drawPairs(batch, { seed, blockSize: 4, draws, antithetic })
      for (let i = 0; i < masked.length; i++) if (masked[i] && t[i]! > 0) totals[i % size]! += 1 / t[i]! / draws / seeds
    }
    for (let i = 0; i < size; i++)
      if (scored.includes(i)) expect(Math.abs(totals[i]! - 1), `token ${i}`).toBeLessThan(0.08)
      else expect(batch.padding[i] || totals[i] === 0).toBeTruthy()
  })

  it('antithetic draws mask what the one before shows, or all of a block', () => {
    const { masked, t } = drawPairs(batch, { seed: 1, blockSize: 4, draws: 4, antithetic: true })
    for (const draw of [0, 2])
      for (const i of scored) {
        const [one, other] = [draw * size + i, (draw + 1) * size + i]
        expect(masked[one]! + masked[other]!).toBe(t[one] === 1 ? 2 : 1)
      }
  })

  it('draws of a pair do not depend on where it is packed, those of another epoch or seed differ', () => {
    const options = { rows: 2, length: 24, blockSize: 4, eosId: 0, byteLength: (ids: ArrayLike<number>) => ids.length }
    const drawing = { seed: 7, blockSize: 4, draws: 3 }
    const packed = (order: readonly number[], epoch = 0) =>
      pairBatches(
        order.map((i) => ({ pair: pairs[i]!, epoch })),
        options,
      )
    /** Masks of the answers of pair 1. */
    const masks = (batches: Batch[], changes = {}) =>
      batches.flatMap((batch) => {
        const { masked } = drawPairs(batch, { ...drawing, ...changes })
        const pair = batch.pairs!.find(({ id }) => id === 1)
        if (!pair) return []
        return [pair.chosen, pair.rejected].map((start, i) =>
          Array.from({ length: 3 }, (_, copy) => {
            const first = copy * batch.rows * batch.length + start
            return masked.slice(first, first + pairs[1]![i === 0 ? 'chosen' : 'rejected'].ids.length).join('')
          }),
        )
      })
    const expected = masks(packed([0, 1]))
    expect(expected).toHaveLength(2)
    expect(masks(packed([1, 0]))).toEqual(expected)
    expect(masks(packed([1]))).toEqual(expected)
    expect(masks(packed([0, 1], 1))).not.toEqual(expected)
    expect(masks(packed([0, 1]), { seed: 8 })).not.toEqual(expected)
    expect(masks(packed([0, 1]), { heldOut: true })).not.toEqual(expected)
  })

  it('refuses odd antithetic draws, and documents of no pair', () => {
    expect(() => drawPairs(batch, { seed: 1, blockSize: 4, draws: 3, antithetic: true })).toThrow('even')
    expect(() => drawPairs({ ...batch, pairs: [] }, { seed: 1, blockSize: 4, draws: 1 })).toThrow('of no pair')
  })
})
