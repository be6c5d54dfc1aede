// Mixtures of experts against their definition, position by position; their gradients against differences.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { checkGradients, evaluate, normal } from '../../../test/graph/gradient-check.ts'
import type { TensorData } from '../../core/types.ts'
import { createWeights } from '../../nn/weights.ts'
import { dequantize } from '../../quant/layout.ts'
import { roundToNearest } from '../../quant/round.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { exportOnnx } from '../program.ts'
import type { Tensor } from '../tensor.ts'
import { mul } from './elementwise.ts'
import { type Expert, experts, rowMaximum, type Selection, selectExperts } from './experts.ts'
import { input } from './input.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const list = ({ data }: TensorData): number[] => Array.from(data as Float32Array)

/** Which experts a row of scores goes to, by definition. */
function choice(scores: readonly number[], { topK, groups, topGroups }: Selection): boolean[] {
  const size = scores.length / groups
  const descending = (values: readonly number[]) => [...values].sort((a, b) => b - a)
  const best = (values: readonly number[], count: number) => {
    const least = descending(values)[count - 1]
    return values.map((value) => value >= least)
  }
  const groupScores = Array.from({ length: groups }, (_, group) =>
    descending(scores.slice(group * size, (group + 1) * size))
      .slice(0, 2)
      .reduce((a, b) => a + b),
  )
  const open = best(groupScores, topGroups)
  return best(
    scores.map((score, i) => (open[Math.floor(i / size)] ? score : Number.NEGATIVE_INFINITY)),
    topK,
  )
}

it('selectExperts takes the best experts of the best groups', async () => {
  const selections = fc
    .record({ groups: fc.integer({ min: 1, max: 4 }), size: fc.integer({ min: 1, max: 5 }) })
    .chain(({ groups, size }) =>
      fc
        .integer({ min: 1, max: groups })
        .chain((topGroups) =>
          fc
            .integer({ min: 1, max: size * topGroups })
            .map((topK) => ({ selection: { topK, groups, topGroups }, experts: groups * size })),
        ),
    )
  await fc.assert(
    fc.asyncProperty(selections, fc.nat(), fc.nat(3), async ({ selection, experts }, seed, length) => {
      const scores = normal(seed, [2, length, experts])
      const result = await evaluate(executor, { values: { scores }, build: (t) => selectExperts(t.scores, selection) })
      expect(result.shape).toEqual([2, length, experts])
      const values = list(scores)
      const rows = Array.from({ length: 2 * length }, (_, i) => values.slice(i * experts, (i + 1) * experts))
      expect(list(result)).toEqual(rows.flatMap((row) => choice(row, selection).map(Number)))
    }),
    { numRuns: 25 },
  )
})

const [count, width, inner, topK] = [5, 6, 4, 2]
const matrixNames = Array.from({ length: count }, (_, e) => [`gate${e}`, `up${e}`, `down${e}`]).flat()
const shapeOf = (name: string) => (name.startsWith('down') ? [width, inner] : [inner, width])

/** Positions and their scores; expert 3 is never chosen, and expert 0 always. */
function example(rows: number): Record<string, TensorData> {
  const scores = normal(2, [rows, count])
  ;(scores.data as Float32Array).forEach((_, i, all) => {
    if (i % count === 3) all[i] = -9
    if (i % count === 0) all[i] = 9
  })
  const matrices = matrixNames.map((name, i) => [name, normal(10 + i, shapeOf(name))] as const)
  return { x: normal(1, [rows, width]), scores, weights: normal(3, [rows, count]), ...Object.fromEntries(matrices) }
}

const expertsOf = (t: Record<string, Tensor>): Expert[] =>
  Array.from({ length: count }, (_, e) => ({ gate: t[`gate${e}`], up: t[`up${e}`], down: t[`down${e}`] }))

function mixture(t: Record<string, Tensor>): Tensor {
  const selected = selectExperts(t.scores, { topK, groups: 1, topGroups: 1 })
  return experts(t.x, { weights: mul(t.weights, selected), selected, topK }, expertsOf(t))
}

/** The same by definition; `matrix` gives a matrix row by row. */
function byHand(values: Record<string, TensorData>, rows: number): number[] {
  const row = (name: string, i: number, size: number) => list(values[name]).slice(i * size, (i + 1) * size)
  const product = (name: string, x: readonly number[]) => {
    const [out, width] = values[name].shape as [number, number]
    return Array.from({ length: out }, (_, i) => row(name, i, width).reduce((sum, w, j) => sum + w * x[j], 0))
  }
  return Array.from({ length: rows }, (_, i) => {
    const x = row('x', i, values.x.shape[1] as number)
    const sum = new Array<number>(x.length).fill(0)
    choice(row('scores', i, count), { topK, groups: 1, topGroups: 1 }).forEach((chosen, e) => {
      if (!chosen) return
      const up = product(`up${e}`, x)
      const hidden = product(`gate${e}`, x).map((g, k) => (g / (1 + Math.exp(-g))) * up[k])
      for (const [k, y] of product(`down${e}`, hidden).entries()) sum[k] += row('weights', i, count)[e] * y
    })
    return sum
  }).flat()
}

const worst = (actual: readonly number[], expected: readonly number[]): number =>
  Math.max(...expected.map((value, i) => Math.abs(value - actual[i]!)))

describe('experts', () => {
  it.each([1, 2, 17])('gives each of %i positions the weighted sum of its experts', async (rows) => {
    const values = example(rows)
    const expected = byHand(values, rows)
    expect(worst(list(await evaluate(executor, { values, build: mixture })), expected)).toBeLessThan(1e-4)
    const shapes = { x: ['B', width], scores: ['B', count], weights: ['B', count] }
    expect(worst(list(await evaluate(executor, { values, shapes, build: mixture })), expected)).toBeLessThan(1e-4)
  })

  it('has the gradient of positions, weights and matrices, of idle experts too', async () => {
    // Chosen by whole scores: a difference must not change the choice.
    const { scores, ...rest } = example(7)
    const wanted = ['x', 'weights', 'gate0', 'up0', 'down0', 'down1', 'gate3', 'down3']
    await checkGradients(executor, { values: { ...rest, scores }, wanted, build: mixture })
  })

  it('runs quantised matrices', async () => {
    const [rows, width, inner] = [9, 64, 32]
    const format = { bits: 8, blockSize: 32, asymmetric: false } as const
    const shapes = new Map(
      matrixNames.map((name) => [`${name}.weight`, name.startsWith('down') ? [width, inner] : [inner, width]]),
    )
    const { scores, weights } = example(rows)
    const values: Record<string, TensorData> = { x: normal(1, [rows, width]), scores, weights }
    const embed = new Map<string, TensorData>()
    for (const [i, [name, shape]] of [...shapes].entries()) {
      const parameter = roundToNearest(
        shape,
        Float32Array.from(list(normal(10 + i, shape)), (v) => v / 4),
        format,
      )
      const blocks = shape[1] / 32
      embed.set(name, { dtype: 'uint8', shape: [shape[0], blocks, 32], data: parameter.packed })
      embed.set(name.replace('weight', 'scales'), {
        dtype: 'float32',
        shape: [shape[0], blocks],
        data: parameter.scales,
      })
      values[name.replace('.weight', '')] = { dtype: 'float32', shape, data: dequantize(parameter) }
    }
    const parameters = createWeights(shapes, new Map([...shapes.keys()].map((name) => [name, format])))
    const feeds = { x: values.x, scores, weights }
    const tensors: Record<string, Tensor> = {}
    for (const [name, value] of Object.entries(feeds)) tensors[name] = input(name, 'float32', value.shape)
    for (const name of matrixNames) tensors[name] = parameters(`${name}.weight`)
    const session = await executor.loadModel(
      exportOnnx({ name: 'test', outputs: { y: mixture(tensors) } }, { embed }).model,
    )
    const { y } = await session.run(feeds, { y: null })
    await session.release()
    const expected = byHand(values, rows)
    const size = Math.max(...expected.map(Math.abs))
    // Activations are rounded to 8 bits per block.
    expect(worst(list(y), expected) / size).toBeLessThan(0.02)
  })

  it('has the gradient of positions and weights where the matrices are quantised', async () => {
    const [width, inner] = [32, 16]
    const format = { bits: 4, blockSize: 16, asymmetric: false } as const
    const { scores, weights } = example(5)
    const values: Record<string, TensorData> = { x: normal(1, [5, width]), scores, weights }
    const shapes = new Map<string, number[]>()
    for (const [i, name] of matrixNames.entries()) {
      const shape = name.startsWith('down') ? [width, inner] : [inner, width]
      const data = Float32Array.from(list(normal(10 + i, shape)), (v) => v / 4)
      const { packed, scales } = roundToNearest(shape, data, format)
      shapes.set(`${name}.weight`, shape)
      values[`${name}.weight`] = { dtype: 'uint8', shape: [shape[0], shape[1] / 16, 8], data: packed }
      values[`${name}.scales`] = { dtype: 'float32', shape: [shape[0], shape[1] / 16], data: scales }
    }
    await checkGradients(executor, {
      values,
      wanted: ['x', 'weights'],
      build(tensors) {
        const formats = new Map([...shapes.keys()].map((name) => [name, format]))
        const parameters = createWeights(shapes, formats, { exact: true })
        return mixture({
          ...tensors,
          ...Object.fromEntries(matrixNames.map((name) => [name, parameters(`${name}.weight`)])),
        })
      },
    })
  })
})

it('rowMaximum', async () => {
  const x = normal(5, [4, 7])
  const result = await evaluate(executor, { values: { x }, build: (t) => rowMaximum(t.x) })
  expect(list(result)).toEqual([0, 1, 2, 3].map((i) => Math.max(...list(x).slice(i * 7, i * 7 + 7))))
})
