// Attention of drafting groups against the definition, and its gradients; distillation's too.
import { afterAll, describe, expect, it } from 'vitest'
import { checkGradients, evaluate, int64, normal } from '../../../../test/graph/gradient-check.ts'
import { createExecutor } from '../../../runtime/onnxruntime/executor.ts'
import type { Tensor } from '../../tensor.ts'
import { softCrossEntropy, softmax } from '../cross-entropy.ts'
import { linear } from '../linear.ts'
import { draftAttention } from './draft.ts'
import { strideBias } from './masks.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const heads = 4
const kvHeads = 2
const headDim = 6
const [rows, length, groups, size] = [2, 7, 2, 3]
const documents = [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, -1]
// Of each position that drafts: groups with one anchor, and with two.
const anchors = [3, 3, 3, 1, 1, 6, 0, 5, 5, 2, 2, 2]

const values = {
  q: normal(1, [rows, groups * size, heads * headDim]),
  k: normal(2, [rows, groups * size, kvHeads * headDim]),
  v: normal(3, [rows, groups * size, kvHeads * headDim]),
  contextKey: normal(4, [rows, length, kvHeads * headDim]),
  contextValue: normal(5, [rows, length, kvHeads * headDim]),
}
const layout = { anchors: int64([rows, groups, size], anchors), documents: int64([rows, length], documents) }

const build = (x: Record<string, Tensor>) =>
  draftAttention(
    x.q,
    { key: x.k, value: x.v },
    { key: x.contextKey, value: x.contextValue },
    strideBias(x.anchors, x.documents),
    { heads, kvHeads, size, trainContext: true },
  )

/** Each query, head by head, over the keys that it sees. */
function reference(): Float64Array {
  const { q, k, v, contextKey, contextValue } = values
  const out = new Float64Array(q.data.length)
  for (let row = 0; row < rows; row++)
    for (let group = 0; group < groups; group++)
      for (let i = 0; i < size; i++)
        for (let head = 0; head < heads; head++) {
          const shared = Math.floor(head / (heads / kvHeads)) * headDim
          const first = (row * groups + group) * size
          const query = (first + i) * heads * headDim + head * headDim
          const anchor = anchors[first + i]
          const seen: [keys: typeof k, values: typeof v, at: number][] = []
          for (let j = 0; j <= anchor; j++)
            if (documents[row * length + j] === documents[row * length + anchor])
              seen.push([contextKey, contextValue, (row * length + j) * kvHeads * headDim + shared])
          for (let j = 0; j <= i; j++)
            if (anchors[first + j] === anchor) seen.push([k, v, (first + j) * kvHeads * headDim + shared])
          const scores = seen.map(([keys, , at]) => {
            let score = 0
            for (let d = 0; d < headDim; d++) score += Number(q.data[query + d]) * Number(keys.data[at + d])
            return Math.exp(score / Math.sqrt(headDim))
          })
          const total = scores.reduce((a, b) => a + b)
          seen.forEach(([, from, at], n) => {
            for (let d = 0; d < headDim; d++) out[query + d] += (scores[n] / total) * Number(from.data[at + d])
          })
        }
  return out
}

describe('draftAttention', () => {
  it('sees the row up to the anchor, within its document, and those of the group with its anchor up to the query', async () => {
    const { data } = await evaluate(executor, { values: { ...values, ...layout }, build })
    const expected = reference()
    expect(data.length).toBe(expected.length)
    expected.forEach((value, i) => {
      expect(Number(data[i])).toBeCloseTo(value, 5)
    })
  })

  it('has gradients for queries, keys and values of the groups and of the row', () =>
    checkGradients(executor, {
      values: { ...values, ...layout },
      wanted: ['q', 'k', 'v', 'contextKey', 'contextValue'],
      build,
    }))
})

describe('softCrossEntropy', () => {
  it('has a gradient for the states', () =>
    checkGradients(executor, {
      values: {
        hidden: normal(1, [5, 4]),
        head: normal(2, [9, 4]),
        teacher: normal(3, [5, 9]),
        weights: normal(4, [5]),
      },
      wanted: ['hidden'],
      build: (x) => softCrossEntropy(linear(x.hidden, x.head), softmax(x.teacher), x.weights),
    }))
})
