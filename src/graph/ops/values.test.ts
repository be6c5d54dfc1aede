// The values that operations with a formula of their own compute, against that formula in float64.
import { afterAll, expect, it } from 'vitest'
import { evaluate, indices, int64, normal, positive } from '../../../test/graph/gradient-check.ts'
import type { TensorData } from '../../core/types.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import type { Tensor } from '../tensor.ts'
import { adamw } from './adamw.ts'
import { crossEntropy } from './cross-entropy.ts'
import { entropyOfRight } from './entropy.ts'
import { input } from './input.ts'
import { reshape, scatterAddRows } from './layout.ts'
import { predict } from './predict.ts'
import { sumSquares } from './reduce.ts'
import { rmsNorm } from './rms-norm.ts'
import { rope } from './rope.ts'
import { swiglu } from './swiglu.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const float = (shape: number[], values: number[]): TensorData => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from(values),
})
const list = ({ data }: TensorData): number[] => Array.from(data as ArrayLike<number | bigint>, Number)

function expectClose(actual: readonly number[], expected: readonly number[], tolerance = 1e-5) {
  expect(actual.length).toBe(expected.length)
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]), `${value} at ${i}, expected ${expected[i]}`).toBeLessThanOrEqual(tolerance)
  })
}

it('rmsNorm', async () => {
  const x = normal(1, [3, 5])
  const w = normal(2, [5])
  const epsilon = 0.01
  const result = await evaluate(executor, { values: { x, w }, build: (t) => rmsNorm(t.x, t.w, epsilon) })
  const rows = list(x)
  expectClose(
    list(result),
    rows.map((value, i) => {
      const row = rows.slice(i - (i % 5), i - (i % 5) + 5)
      return (list(w)[i % 5] * value) / Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / 5 + epsilon)
    }),
  )
})

it('swiglu', async () => {
  const [gate, up] = [normal(1, [2, 7]), normal(2, [2, 7])]
  const result = await evaluate(executor, { values: { gate, up }, build: (t) => swiglu(t.gate, t.up) })
  expectClose(
    list(result),
    list(gate).map((g, i) => (g / (1 + Math.exp(-g))) * list(up)[i]),
  )
})

it.each([0, 3])(
  'rope turns the pair (i, i + R/2) of each head by its angle and leaves the last %i alone',
  async (rest) => {
    const [length, heads, half] = [3, 2, 2]
    const headDim = half * 2 + rest
    const x = normal(1, [1, length, heads * headDim])
    const positions = [4, 0, 2]
    const angle = (position: number, i: number) => position * 0.7 ** (i + 1)
    const table = (f: (angle: number) => number) =>
      float(
        [5, half],
        Array.from({ length: 5 * half }, (_, i) => f(angle(Math.floor(i / half), i % half))),
      )
    const result = await evaluate(executor, {
      values: { x, positions: int64([1, length], positions), cos: table(Math.cos), sin: table(Math.sin) },
      build: (t) => rope(t.x, t.positions, t.cos, t.sin, heads),
    })
    const values = list(x)
    expectClose(
      list(result),
      values.map((value, i) => {
        const within = i % headDim
        if (within >= half * 2) return value
        const a = angle(positions[Math.floor(i / (heads * headDim))], within % half)
        return within < half
          ? value * Math.cos(a) - values[i + half] * Math.sin(a)
          : value * Math.cos(a) + values[i - half] * Math.sin(a)
      }),
    )
  },
)

const logSumExp = (row: readonly number[]) => Math.log(row.reduce((sum, v) => sum + Math.exp(v), 0))

it('crossEntropy: the weighted loss, and each nll', async () => {
  const [hidden, head] = [normal(1, [4, 3]), normal(2, [6, 3])]
  const labels = indices(3, [4], 6)
  const weights = positive(4, [4])
  const values = { hidden, head, labels, weights }
  const logits = Array.from({ length: 4 }, (_, i) =>
    Array.from({ length: 6 }, (_, j) =>
      [0, 1, 2].reduce((sum, d) => sum + list(hidden)[i * 3 + d] * list(head)[j * 3 + d], 0),
    ),
  )
  const nll = logits.map((row, i) => logSumExp(row) - row[list(labels)[i]])
  const build = (which: 'loss' | 'nll') =>
    evaluate(executor, { values, build: (t) => crossEntropy(t.hidden, t.head, t.labels, t.weights)[which] })
  expectClose(list(await build('nll')), nll)
  expectClose(list(await build('loss')), [nll.reduce((sum, value, i) => sum + value * list(weights)[i], 0)])
})

it('crossEntropy over no positions is 0', async () => {
  const result = await evaluate(executor, {
    values: { hidden: normal(1, [0, 3]), labels: int64([0], []), weights: float([0], []), head: normal(2, [6, 3]) },
    shapes: { hidden: ['M', 3], labels: ['M'], weights: ['M'] },
    build: (t) => crossEntropy(t.hidden, t.head, t.labels, t.weights).loss,
  })
  expect(list(result)).toEqual([0])
})

it.each([1, 0.5])('entropyOfRight: the mean over right predictions, at temperature %s', async (temperature) => {
  const probabilities = [0.5, 0.3, 0.2, 0.1, 0.8, 0.1, 0.2, 0.2, 0.6]
  const values = {
    logProbabilities: float([3, 3], probabilities.map(Math.log)),
    labels: int64([3], [0, 0, 2]),
    weights: float([3], [0.2, 0.3, 0.1]),
  }
  const entropy = (row: number) => {
    const raised = probabilities.slice(row * 3, row * 3 + 3).map((p) => p ** (1 / temperature))
    const sum = raised.reduce((a, b) => a + b)
    return -raised.reduce((total, p) => total + (p / sum) * Math.log(p / sum), 0)
  }
  const build = (which: 'entropy' | 'right') =>
    evaluate(executor, {
      values,
      build: (t) => entropyOfRight(t.logProbabilities, t.labels, t.weights, temperature)[which],
    })
  // The second is wrong.
  expectClose(list(await build('right')), [0.3])
  expectClose(list(await build('entropy')), [(0.6 * (0.2 * entropy(0) + 0.1 * entropy(2))) / 0.3])
})

it('entropyOfRight is 0 where nothing is right', async () => {
  const values = {
    logProbabilities: float([1, 2], [0.4, 0.6].map(Math.log)),
    labels: int64([1], [0]),
    weights: float([1], [1]),
  }
  const result = await evaluate(executor, {
    values,
    build: (t) => entropyOfRight(t.logProbabilities, t.labels, t.weights).entropy,
  })
  expect(list(result)).toEqual([0])
})

it('predict never chooses a forbidden token, and scales each position before the softmax', async () => {
  const logits = float([2, 4], [1, 5, 2, 3, -1, -2, 9, -1.5])
  const bias = float([4], [0, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 0])
  const values = { logits, bias, scale: float([2], [2, 1]) }
  const token = await evaluate(executor, { values, build: (t) => predict(t.logits, t.bias, t.scale).token })
  const confidence = await evaluate(executor, { values, build: (t) => predict(t.logits, t.bias, t.scale).confidence })
  expect(list(token)).toEqual([3, 0])
  expectClose(list(confidence), [1 / (1 + Math.exp(-4)), 1 / (1 + Math.exp(-0.5))])
})

it('sumSquares', async () => {
  const x = normal(1, [3, 4])
  const result = await evaluate(executor, { values: { x }, build: (t) => reshape(sumSquares(t.x, [1]), [3, 1]) })
  expectClose(
    list(result),
    [0, 4, 8].map((i) =>
      list(x)
        .slice(i, i + 4)
        .reduce((sum, v) => sum + v * v, 0),
    ),
  )
})

it('adamw: three updates, chunk by chunk, written where the parameters and moments lie', async () => {
  const [chunks, size, beta1, beta2, epsilon, rate, weightDecay] = [3, 5, 0.9, 0.99, 1e-6, 0.01, 0.1]
  const flat = (name: string) => input(name, 'float32', [chunks, size])
  const one = (name: string) => input(name, 'float32', [])
  const names = ['gradientScale', 'decay', 'stepSize', 'epsilon'] as const
  const [p, m, v] = adamw(
    flat('p'),
    flat('g'),
    flat('m'),
    flat('v'),
    { gradientScale: one(names[0]), decay: one(names[1]), stepSize: one(names[2]), epsilon: one(names[3]) },
    { beta1, beta2 },
  )
  const session = await executor.load(
    { name: 'adamw', outputs: { p2: p, m2: m, v2: v } },
    {
      optimize: false,
    },
  )
  const start = normal(1, [chunks, size])
  await executor.allocate('p', 'float32', Float32Array.from(list(start)))
  for (const name of ['m', 'v']) await executor.allocate(name, 'float32', chunks * size)
  const resident = (name: string) => ({ resident: name, shape: [chunks, size] })

  const expected = list(start).map((value) => ({ p: value, m: 0, v: 0 }))
  for (let t = 1; t <= 3; t++) {
    const g = normal(10 + t, [chunks, size])
    const correction = Math.sqrt(1 - beta2 ** t)
    const coefficients = [0.5, 1 - rate * weightDecay, (rate * correction) / (1 - beta1 ** t), epsilon * correction]
    await session.run(
      {
        p: resident('p'),
        m: resident('m'),
        v: resident('v'),
        g,
        ...Object.fromEntries(names.map((name, i) => [name, float([], [coefficients[i]])])),
      },
      { p2: resident('p'), m2: resident('m'), v2: resident('v') },
    )
    expected.forEach((state, i) => {
      const gradient = 0.5 * list(g)[i]
      state.m = beta1 * state.m + (1 - beta1) * gradient
      state.v = beta2 * state.v + (1 - beta2) * gradient ** 2
      const step = state.m / (1 - beta1 ** t) / (Math.sqrt(state.v / (1 - beta2 ** t)) + epsilon)
      state.p = state.p * (1 - rate * weightDecay) - rate * step
    })
  }
  for (const name of ['p', 'm', 'v'] as const)
    expectClose(
      Array.from((await executor.read(name)) as Float32Array),
      expected.map((state) => state[name]),
    )
})

it('scatterAddRows loses nothing where an index repeats and several threads run', async () => {
  const threads = createExecutor({ threads: 2 })
  const [table, rows, width] = [64, 8192, 256]
  const index = indices(1, [rows], 7)
  const ones: TensorData = { dtype: 'float32', shape: [rows, width], data: new Float32Array(rows * width).fill(1) }
  const expected = new Float32Array(table * width)
  for (const row of list(index)) for (let j = 0; j < width; j++) expected[row * width + j]++
  const expression = {
    values: { index, ones },
    build: (t: Record<string, Tensor>) => scatterAddRows([table, width], t.index, t.ones),
  }
  try {
    for (let i = 0; i < 10; i++) expect((await evaluate(threads, expression)).data).toEqual(expected)
  } finally {
    await threads.dispose()
  }
})
