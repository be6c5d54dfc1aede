// Chats whose turns share blocks: a turn is predicted as decoding predicts it, from what stands before it alone.
import { afterAll, describe, expect, it } from 'vitest'
import { model, packed, weights } from '../../test/train/tiny.ts'
import type { TensorData } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import { drawStrides } from '../diffusion/strides.ts'
import { turnsOf } from '../diffusion/turns.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from '../train/graph.ts'
import { bdlm } from './bdlm.ts'
import type { DenoisingSettings } from './denoising.ts'
import type { Variant } from './index.ts'
import { mdlm } from './mdlm.ts'
import { tiles } from './tiles.ts'
import type { MicroBatch } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const parameters = Object.fromEntries(
  [...weights()].map(([name, { shape, data }]): [string, TensorData] => [name, { dtype: 'float32', shape, data }]),
)
const at = { seed: 1, step: 0, row: 0 }
/** Everything is masked. */
const settings: DenoisingSettings = {
  maskTokenId: 23,
  weighting: 'mean',
  noise: { noiseRangeLow: 1, noiseRangeHigh: 1, supervisePadding: false },
  finalBlockSize: 8,
  blockSize: 8,
  hiddenSize: 16,
  embeddingNoise: 0,
}

/** Answers of the chat: from, and behind the last token. */
const answers = [
  [3, 6],
  [8, 12],
  [13, 15],
  [20, 26],
] as const

/** The first `count` turns; the answers that are learned are those given. Padded to a multiple of `blockSize`. */
function chat(count: number, learned: readonly number[], blockSize = 8): Batch {
  const sizes = { rows: 1, length: 32, blockSize }
  const batch = packed(7, [answers[count - 1]![1]], sizes)
  const isLearned = (i: number) => learned.some((turn) => i >= answers[turn]![0] && i < answers[turn]![1])
  const whole = packed(7, [26], sizes)
  return {
    ...batch,
    ids: batch.ids.map((id, i) => (i < answers[count - 1]![1] ? whole.ids[i]! : id)),
    maskable: batch.maskable.map((flag, i) => (batch.padding[i] === 0 && !isLearned(i) ? 0 : flag)),
  }
}

/** The negative log-likelihoods of what carries loss. */
async function nlls({ objective, rows, length, feeds }: MicroBatch<Variant>): Promise<number[]> {
  const program = objectiveProgram(model, objective, { rows, length }, { gradients: false })
  const session = await executor.load(program, { optimize: false })
  const { nll } = await session.run({ ...feeds, ...parameters }, { nll: null })
  await session.release()
  const used = (feeds.loss_weights as TensorData).data
  return Array.from(nll!.data, Number).filter((_, i) => Number(used[i]) > 0)
}

describe.each([
  ['tiles', tiles, 8],
  ['bdlm', bdlm, 8],
  ['mdlm', mdlm, 32],
] as const)('turns apart with %s', (_, objective, blockSize) => {
  it.each([false, true])('are predicted from what stands before them alone, with token shift %s', async (shift) => {
    const use = { ...settings, blockSize, shift }
    const alone: number[] = []
    for (const turn of answers.keys())
      alone.push(...(await nlls(objective.prepare(chat(turn + 1, [turn], blockSize), at, use))))
    const all = await nlls(objective.prepare(chat(4, [0, 1, 2, 3], blockSize), at, use))
    const [expected, actual] = [alone, all].map((values) => values.sort((a, b) => a - b))
    expect(actual).toHaveLength(15)
    for (const [i, value] of expected!.entries()) expect(actual![i]).toBeCloseTo(value, 4)
  })
})

describe('the bound of a chat', () => {
  it('scores every token of an answer in each draw that masks all', () => {
    const batch = chat(4, [0, 1, 2, 3])
    const [{ microBatch, tiles: places } = { microBatch: undefined, tiles: undefined }] = tiles.measure(
      batch,
      { seed: 1, pairs: 1, row: 5 },
      settings,
    )
    const used = (microBatch!.feeds.loss_weights as TensorData).data
    expect(places).toHaveLength(Array.from(used, Number).filter((weight) => weight > 0).length)
    for (const tile of places!) {
      expect(tile.row).toBe(5)
      expect([0, 1]).toContain(tile.draw)
    }
  })
})

it('strides end with their turn', () => {
  const batch = chat(4, [0, 1, 2, 3])
  const turns = turnsOf(batch)
  const { anchors, positions, weights } = drawStrides(batch, { ...at, size: 8, count: 8 })
  const predicted = new Set<number>()
  for (const [mask, weight] of weights.entries()) {
    if (weight === 0) continue
    const token = positions[mask]! + 1
    expect(turns[token]).toBe(turns[anchors[mask]!])
    predicted.add(token)
  }
  expect(predicted.size).toBeGreaterThan(6)
})
