// Blocks that are noised in groups: which see which, their mask ratios, and that training predicts what decoding does that has
// all blocks of a group in its buffer.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { expectGradients, runObjective } from '../../test/train/objective.ts'
import { model, packed, weights } from '../../test/train/tiny.ts'
import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { complete, createEngine } from '../decode/engine.ts'
import { createForward, type Forward } from '../decode/forward.ts'
import { drawNoise, type Noise } from '../diffusion/noise.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { DenoisingSettings } from './denoising.ts'
import { tiles } from './tiles.ts'

const executor = createExecutor({ threads: 1 })
let forward: Forward
beforeAll(async () => {
  forward = await createForward(executor, model, weights(), [MASK])
})
afterAll(() => executor.dispose())

const MASK = 23
const B = 4
const at = { seed: 2, step: 3, row: 5 }
const settings: DenoisingSettings = {
  maskTokenId: MASK,
  weighting: 'mean',
  noise: { copies: 2, groupSize: 3, noiseRangeLow: 0.2 },
  finalBlockSize: B,
  blockSize: B,
  hiddenSize: 16,
  embeddingNoise: 0,
}

// A document of 22 tokens, 5 of them a prompt, one of 8 without a prompt, and a tail.
const documents = (seed: number) => {
  const batch = packed(seed, [22, 8], { rows: 1, length: 36, blockSize: B })
  return { ...batch, maskable: batch.maskable.map((flag, i) => (i < 5 ? 0 : flag)) }
}

const drawn = (batch: Batch, seed: number): Noise => drawNoise(batch, { ...settings.noise, ...at, seed, blockSize: B })

/** The nll of every token of the loss under decoding, by its index in [copies, rows, length]. */
async function decoded(batch: Batch, noise: Noise, shift: boolean): Promise<Map<number, number>> {
  const found = new Map<number, number>()
  const { length, ids, positions, documents, maskable } = batch
  const joined = (i: number) => noise.joined![i] === 1
  for (let start = 0; start < noise.masked.length; start += B) {
    const i = start % length
    if (documents[i]! < 0) continue
    let first = start
    while (joined(first)) first -= B
    const document = i - positions[i]!
    // Clean up to the group, then noised up to this block; all in one forward, as a buffer has it.
    const clean = [...ids.slice(document, first % length)]
    const noised = Array.from({ length: start + B - first }, (_, j) =>
      noise.masked[first + j] === 1 ? MASK : ids[(first + j) % length]!,
    )
    const cache = await forward.createCache()
    const rows = Array.from({ length: clean.length + noised.length }, (_, row) => row)
    const { logits } = await forward.run(cache, {
      ...{ ids: [...clean, ...noised], blockSize: B, rows, store: 0, logits: true },
    })
    await cache.free()
    const V = model.dimensions.vocabSize
    for (let j = 0; j < B; j++) {
      const token = start + j
      const row = positions[i]! + j - (shift ? 1 : 0)
      if (noise.masked[token] !== 1 || maskable[token % length] !== 1 || row < 0) continue
      const scores = Array.from(logits!.slice(row * V, (row + 1) * V))
      const total = Math.log(scores.reduce((sum, x) => sum + Math.exp(x), 0))
      found.set(token, total - scores[ids[token % length]!]!)
    }
  }
  return found
}

describe('blocks noised in groups', () => {
  it.each([false, true])('are predicted as in a buffer that holds them, with token shift %s', async (shift) => {
    const batch = documents(1)
    const noise = drawn(batch, at.seed)
    expect(noise.joined!.includes(1)).toBe(true)
    const expected = await decoded(batch, noise, shift)
    const prepared = tiles.prepare(batch, at, { ...settings, shift })
    expect(prepared.objective).toMatchObject({ kind: 'tiles', grouped: true })
    const { nll } = await runObjective({ executor, model }, prepared, { gradients: false, weights: weights() })
    const used = (prepared.feeds.loss_weights as TensorData).data
    const values = Array.from(nll!.data, Number).filter((_, i) => Number(used[i]) > 0)
    expect(values).toHaveLength(expected.size)
    for (const [i, value] of [...expected.values()].entries()) expect(values[i]).toBeCloseTo(value, 4)
  })

  it('let the first token of a block behind masks be written, where the state before it predicts it', async () => {
    const forwards = async (noisedGroups: boolean) => {
      const options = { maskTokenId: MASK, eosTokenIds: [], shift: true, noisedGroups }
      const engine = await createEngine(executor, model, weights(), options)
      const settings = { blockSize: B, bufferSize: 2, activation: 0, strategy: 'threshold', threshold: 0 } as const
      const result = await complete(engine.generate([1, 2, 3, 4], { ...settings, maxNewTokens: 8 }))
      await engine.dispose()
      return result.forwards
    }
    expect([await forwards(true), await forwards(false)]).toEqual([1, 2])
  })

  it('have the gradients of their loss', async () => {
    const prepared = tiles.prepare(documents(1), at, { ...settings, confidence: { beta: 1e-3, temperature: 1 } })
    await expectGradients(
      (gradients, moved) => runObjective({ executor, model }, prepared, { gradients, weights: moved ?? weights() }),
      weights(),
      1e-3,
    )
  })

  it('begin where an answer does, end with their document, and have ratios that rise', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.integer({ min: 2, max: 4 }), (seed, groupSize) => {
        const batch = documents(seed)
        const { t, joined, masked } = drawNoise(batch, { ...settings.noise, ...at, seed, groupSize, blockSize: B })
        for (const copy of [0, 36]) {
          let size = 1
          for (let block = 0; block < 8; block++) {
            const start = copy + block * B
            size = joined![start] === 1 ? size + 1 : 1
            expect(size).toBeLessThanOrEqual(groupSize)
            // Blocks 0 and 1 hold the prompt; 6 begins another document.
            if ([0, 1, 6].includes(block)) expect(joined![start]).toBe(0)
            if (joined![start] === 1) expect(t[start]).toBeGreaterThanOrEqual(t[start - 1]!)
            else expect(t[start]).toBeGreaterThanOrEqual(Math.fround(0.2))
            for (let i = start; i < start + B; i++) expect(joined![i]).toBe(joined![start])
          }
        }
        expect([...masked.slice(0, 5)]).toEqual([0, 0, 0, 0, 0])
      }),
      { numRuns: 50 },
    )
  })

  it('have every size and every beginning', () => {
    const layouts = new Set<string>()
    for (let seed = 0; seed < 400; seed++) {
      const joined = drawn(documents(1), seed).joined!
      layouts.add([1, 2, 3, 4, 5].map((block) => joined[block * B]).join(''))
    }
    // Whether blocks 2 to 5 join the one before: all 16 ways but those with three in a row.
    expect(layouts.size).toBe(13)
    expect([...layouts].every((layout) => layout.startsWith('0') && !layout.includes('111'))).toBe(true)
  })

  it('do not reach over a block that holds several turns', () => {
    const batch = packed(1, [24], { rows: 1, length: 24, blockSize: B })
    // Answers 2 to 9 and 11 to 23: block 2 holds the end of the first, the prompt of the second, and its beginning.
    const maskable = batch.maskable.map((_, i) => ((i >= 2 && i < 10) || i > 10 ? 1 : 0))
    const seen = new Set<string>()
    for (let seed = 0; seed < 100; seed++) {
      const { joined } = drawn({ ...batch, maskable }, seed)
      seen.add([0, 1, 2, 3, 4, 5].map((block) => joined![block * B]).join(''))
    }
    // Block 1 may join block 0, and blocks 4 and 5 those before them; blocks 2 and 3 never do.
    const expected = ['000000', '000001', '000010', '000011', '010000', '010001', '010010', '010011']
    expect([...seen].sort()).toEqual(expected)
  })
})
