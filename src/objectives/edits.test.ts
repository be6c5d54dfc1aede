// Wrong tokens in noised copies: which they are, and that a model is trained on its own predictions.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { expectGradients, runObjective } from '../../test/train/objective.ts'
import { model, packed, weights } from '../../test/train/tiny.ts'
import type { TensorData } from '../core/types.ts'
import { createForward, type Forward } from '../decode/forward.ts'
import { drawNoise, type NoiseOptions } from '../diffusion/noise.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { DenoisingSettings } from './denoising.ts'
import { edits } from './edits.ts'
import { objectiveAt } from './index.ts'

const executor = createExecutor({ threads: 1 })
let forward: Forward
beforeAll(async () => {
  forward = await createForward(executor, model, weights(), [MASK])
})
afterAll(() => executor.dispose())

const MASK = 23
const B = 4
const V = model.dimensions.vocabSize
const at = { seed: 2, step: 3, row: 5 }
const noise: NoiseOptions = { copies: 2, ownPredictions: 0.6, corruptedTokens: 0.3, noiseRangeLow: 0.3 }
const settings: DenoisingSettings = {
  maskTokenId: MASK,
  weighting: 'mean',
  noise,
  finalBlockSize: B,
  blockSize: B,
  hiddenSize: 16,
  embeddingNoise: 0,
}

// A document of 14 tokens, 5 of them a prompt, one of 8 without, and a tail.
const batch = (() => {
  const rows = packed(1, [14, 8], { rows: 1, length: 28, blockSize: B })
  return { ...rows, maskable: rows.maskable.map((flag, i) => (i < 5 ? 0 : flag)) }
})()

/** The nll of every token that may be masked, in [copies, rows, length], of a block that decoding has filled itself. */
async function decoded(shift: boolean, turns: number): Promise<number[]> {
  const { masked, edits } = drawNoise(batch, { ...noise, ...at, blockSize: B })
  const { ids, positions, documents, maskable, length } = batch
  const found: number[] = []
  for (let start = 0; start < masked.length; start += B) {
    const i = start % length
    if (documents[i]! < 0) continue
    const clean = [...ids.slice(i - positions[i]!, i)]
    const block = Array.from({ length: B }, (_, j) => {
      if (masked[start + j] === 1) return MASK
      const other = edits!.replaced[start + j]!
      return other === -1 ? ids[i + j]! : other
    })
    const run = async () => {
      const cache = await forward.createCache()
      const all = [...clean, ...block]
      const rows = all.map((_, row) => row)
      const result = await forward.run(cache, { ids: all, blockSize: B, rows, store: 0, logits: true })
      await cache.free()
      return result
    }
    const row = (j: number) => positions[i]! + j - (shift ? 1 : 0)
    for (let turn = 0; turn < turns; turn++) {
      const { tokens } = await run()
      for (let j = 0; j < B; j++) if (edits!.own![start + j] === 1 && row(j) >= 0) block[j] = tokens[row(j)]!
    }
    const { logits } = await run()
    for (let j = 0; j < B; j++) {
      if (maskable[i + j] !== 1 || row(j) < 0) continue
      const scores = Array.from(logits!.slice(row(j) * V, (row(j) + 1) * V))
      found.push(Math.log(scores.reduce((sum, x) => sum + Math.exp(x), 0)) - scores[ids[i + j]!]!)
    }
  }
  return found
}

const run = (use: DenoisingSettings) => {
  const prepared = edits.prepare(batch, at, use)
  return {
    prepared,
    outputs: (gradients: boolean, moved = weights()) =>
      runObjective({ executor, model }, prepared, { gradients, weights: moved }),
  }
}

describe('training on own predictions and wrong tokens', () => {
  it.each([
    [false, 1],
    [true, 1],
    [false, 3],
  ])('is on what decoding leaves, with token shift %s and %i forwards before it', async (shift, ownTurns) => {
    const { prepared, outputs } = run({ ...settings, shift, noise: { ...noise, ownTurns } })
    const { nll } = await outputs(false)
    const used = (prepared.feeds.loss_weights as TensorData).data
    const values = Array.from(nll!.data, Number).filter((_, i) => Number(used[i]) > 0)
    const expected = await decoded(shift, ownTurns)
    expect(values).toHaveLength(expected.length)
    for (const [i, value] of expected.entries()) expect(values[i]).toBeCloseTo(value, 4)
  })

  it('has the gradients of its loss', async () => {
    const { outputs } = run({
      ...settings,
      noise: { ...noise, groupSize: 2 },
      confidence: { beta: 0.01, temperature: 1 },
    })
    await expectGradients(
      (gradients, moved) => outputs(gradients, moved as ReturnType<typeof weights>),
      weights(),
      1e-3,
    )
  })

  it('gives the same bits where layers are computed again in the backward pass', async () => {
    const { prepared, outputs } = run(settings)
    const again = await runObjective({ executor, model }, prepared, {
      gradients: true,
      gradientCheckpointing: true,
      weights: weights(),
    })
    expect(again).toEqual(await outputs(true))
  })

  it('is what block diffusion does with such noise', () => {
    expect(objectiveAt('diffusion', settings, 28)).toBe(edits)
    expect(edits.prepare(batch, at, { ...settings, noise: { corruptedTokens: 0.1 } }).objective).toMatchObject({
      turns: 0,
    })
  })
})

describe('wrong tokens', () => {
  it('are visible tokens of answers, of blocks that are noised, and never the right ones', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.double({ min: 0, max: 1, noNaN: true }), (seed, corruptedTokens) => {
        const drawn = drawNoise(batch, { ...noise, ...at, seed, corruptedTokens, blockSize: B })
        const { replaced, own } = drawn.edits!
        for (const [i, other] of replaced.entries()) {
          const token = i % 28
          if (own![i] === 1) expect(drawn.masked[i]).toBe(1)
          if (other === -1) continue
          expect([drawn.masked[i], batch.maskable[token]]).toEqual([0, 1])
          expect(other).not.toBe(batch.ids[token])
          expect(batch.ids).toContain(other)
        }
        // A block is filled as a whole, or not at all.
        for (let start = 0; start < own!.length; start += B) {
          const masks = [0, 1, 2, 3].map((j) => start + j).filter((i) => drawn.masked[i] === 1)
          expect(new Set(masks.map((i) => own![i])).size).toBeLessThanOrEqual(1)
        }
      }),
      { numRuns: 50 },
    )
  })

  it('are as many as asked for', () => {
    let [wrong, visible, filled, masks] = [0, 0, 0, 0]
    for (let seed = 0; seed < 300; seed++) {
      const { masked, t, edits } = drawNoise(batch, { ...noise, ...at, seed, blockSize: B })
      for (const [i, isMasked] of masked.entries()) {
        if (t[i] === 0 || batch.maskable[i % 28] === 0) continue
        masks += isMasked
        filled += edits!.own![i]!
        visible += 1 - isMasked
        if (edits!.replaced[i] !== -1) wrong++
      }
    }
    expect(filled / masks).toBeCloseTo(0.6, 1)
    // Less by the chance that the token drawn is the right one.
    expect(wrong / visible).toBeGreaterThan(0.26)
    expect(wrong / visible).toBeLessThan(0.3)
  })
})
