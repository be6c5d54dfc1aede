import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Batch } from '../data/types.ts'
import { drawNoise, minimumMaskRatio, type NoiseOptions } from './noise.ts'
import { lossPositions, maskableTokens, noisedIds } from './objective.ts'

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

const counters = fc.record({ seed: fc.nat(), step: fc.nat(), microBatch: fc.nat(7) })

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
  const fresh = { seed: 5, step: 9, microBatch: 0 }

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

  it('draws other masks for another seed, step, micro-batch or copy', () => {
    const reference = drawNoise(long, { ...fresh, blockSize: 8, copies: 2 })
    const size = long.rows * long.length
    expect(reference.masked.slice(0, size)).not.toEqual(reference.masked.slice(size))
    expect(drawNoise(long, { ...fresh, blockSize: 8 }).masked).toEqual(reference.masked.slice(0, size))
    for (const change of [{ seed: 6 }, { step: 10 }, { microBatch: 1 }]) {
      expect(drawNoise(long, { ...fresh, blockSize: 8, copies: 2, ...change }).masked).not.toEqual(reference.masked)
    }
  })

  it('masks every token at block size 1, where the ratio does not matter', () => {
    expect(drawNoise(long, { ...fresh, blockSize: 1 }).masked).toEqual(long.maskable)
    expect(new Set(drawNoise(long, { ...fresh, blockSize: 1, copies: 2, complementary: true }).t)).toEqual(
      new Set([0.5]),
    )
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
        const noise = drawNoise(batch, { ...options, blockSize: 8, seed: 3, step, microBatch: 0 })
        return lossPositions(noise, batch, 'elbo').weights.reduce((sum, weight) => sum + weight, 0)
      })
      expect(Math.abs(mean(sums) - 1)).toBeLessThan(0.05)
    }
  })

  it('is exact at block size 1', () => {
    const batch = packedBatch([[[5, 20]], [[0, 9]]], 32)
    for (const options of [{ copies: 1 }, { copies: 2, complementary: true }]) {
      const noise = drawNoise(batch, { ...options, blockSize: 1, seed: 1, step: 0, microBatch: 0 })
      const { weights, labels } = lossPositions(noise, batch, 'elbo')
      expect(labels.length).toBe(maskableTokens(batch))
      for (const weight of weights) expect(weight).toBeCloseTo(1 / maskableTokens(batch), 6)
    }
  })

  it('points at the masked positions, in order, with the clean tokens as labels', () => {
    fc.assert(
      fc.property(batches, noiseOptions, counters, (batch, options, draw) => {
        const noise = drawNoise(batch, { ...options, ...draw })
        const noised = noisedIds(batch.ids, noise.masked, 99)
        const { index, labels, weights } = lossPositions(noise, batch, 'mean')
        const restored = noised.slice()
        for (const [at, flat] of index.entries()) restored[flat] = labels[at]!
        expect([...noised.keys()].filter((i) => noised[i] === 99)).toEqual([...index])
        for (let i = 0; i < restored.length; i++) expect(restored[i]).toBe(batch.ids[i % batch.ids.length])
        if (index.length > 0) expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 4)
        for (const weight of lossPositions(noise, batch, 'elbo').weights) expect(Number.isFinite(weight)).toBe(true)
      }),
    )
  })

  it('is empty where nothing is masked', () => {
    const batch = packedBatch([[[8, 0]]], 8)
    const noise = drawNoise(batch, { blockSize: 4, seed: 1, step: 1, microBatch: 0 })
    for (const weighting of ['elbo', 'mean'] as const) {
      expect(lossPositions(noise, batch, weighting)).toEqual({
        index: new Int32Array(0),
        labels: new Int32Array(0),
        weights: new Float32Array(0),
      })
    }
  })

  it('refuses noise of another batch', () => {
    const batch = packedBatch([[[0, 8]]], 8)
    const noise = drawNoise(batch, { blockSize: 4, seed: 1, step: 1, microBatch: 0 })
    expect(() => lossPositions(noise, packedBatch([[[0, 8]]], 16), 'mean')).toThrow(/positions/)
  })
})

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
