// The hybrid objective: its parts against next-token prediction and against what decoding predicts at masks, its gradients.
import { afterAll, describe, expect, it } from 'vitest'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { expectGradients, runObjective } from '../../test/train/objective.ts'
import { layOut } from '../decode/draft-tree.ts'
import { createForward } from '../decode/forward.ts'
import { drawStrides } from '../diffusion/strides.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { ar } from './ar.ts'
import type { DenoisingSettings } from './denoising.ts'
import { hybrid } from './hybrid.ts'
import type { Variant } from './index.ts'
import type { MicroBatch } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const MASK = 39
const STEP = 0.004
const { model, weights } = tinyLlama()
const batch = packedBatch(MASK)
const { rows, length } = batch
const at = { seed: 1, step: 4, row: 0 }
const settings: DenoisingSettings = {
  maskTokenId: MASK,
  weighting: 'mean',
  noise: { copies: 1 },
  finalBlockSize: 1,
  hiddenSize: 32,
  blockSize: 3,
  embeddingNoise: 0,
  diffusionWeight: 0.3,
}
const run = (microBatch: MicroBatch<Variant>, gradients: boolean, parameters: typeof weights = weights) =>
  runObjective({ executor, model }, microBatch, { gradients, weights: parameters })

describe('hybrid', () => {
  const prepared = hybrid.prepare(batch, at, settings)

  it('has the loss of next-token prediction as a part, and weighs the other', async () => {
    const { loss, ar_loss, diffusion_loss } = await run(prepared, true)
    const expected = await run(ar.prepare(batch, at, {}), true)
    expect(Number(ar_loss.data[0])).toBeCloseTo(Number(expected.loss.data[0]), 5)
    expect(Number(loss.data[0])).toBeCloseTo(Number(ar_loss.data[0]) + 0.3 * Number(diffusion_loss.data[0]), 5)
  })

  it('predicts at a mask what decoding predicts there', async () => {
    const { size, count } = prepared.objective
    const strides = drawStrides(batch, { ...at, size, count })
    const sameStride = (a: number, b: number) => strides.anchors[a] === strides.anchors[b]
    const { nll } = await run(prepared, false)
    const forward = await createForward(executor, model, weights, [])
    let next = prepared.counts!.ar_loss
    const masks = count * size
    for (let mask = 0; mask < rows * masks; ) {
      const anchor = Math.floor(mask / masks) * length + strides.anchors[mask]
      // The masks behind one anchor stand together.
      let behind = 0
      while (behind < size - (mask % size) && strides.weights[mask + behind] > 0 && sameStride(mask, mask + behind))
        behind++
      if (behind === 0) {
        mask++
        continue
      }
      const start = anchor - batch.positions[anchor]
      const text = batch.ids.slice(start, anchor + 1)
      const tree = layOut(0, text.length, [size])
      const cache = forward.createCache()
      const { logits } = await forward.run(cache, {
        ids: [...text, ...tree.masks.map(() => MASK)],
        blockSize: tree,
        rows: tree.masks,
        store: 0,
        logits: true,
      })
      await cache.free()
      for (let offset = 0; offset < behind; offset++) {
        const own = logits!.subarray(offset * 40, (offset + 1) * 40)
        const sum = own.reduce((total, x) => total + Math.exp(x), 0)
        const expected = Math.log(sum) - own[strides.labels[mask + offset]]
        expect(Number(nll.data[next++])).toBeCloseTo(expected, 4)
      }
      mask += behind
    }
    expect(next).toBe(prepared.counts!.loss_positions)
    await forward.dispose()
  })

  it('has the gradients of its loss, through the text that masks see too', () =>
    expectGradients((gradients, moved) => run(prepared, gradients, moved as typeof weights), weights, STEP))

  it('is measured by next-token prediction', () => {
    const [{ microBatch, tiles }] = hybrid.measure(batch, { seed: 1, pairs: 2, row: 0 }, settings)
    expect(microBatch).toEqual(ar.prepare(batch, at, {}))
    expect(tiles).toBeUndefined()
  })
})
