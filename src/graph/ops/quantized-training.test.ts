// Quantised matrices as training has them: exact products, and gradients of their inputs.
import { afterAll, describe, expect, it } from 'vitest'
import { checkGradients, int64, normal, positive, type Values } from '../../../test/graph/gradient-check.ts'
import { random } from '../../core/random.ts'
import type { BlockFormat, QuantizedParameter, TensorData } from '../../core/types.ts'
import { loadInference } from '../../nn/inference.ts'
import { createWeights } from '../../nn/weights.ts'
import { blockLayout, flipSigns, quantizedNames, rowFormat, dequantize as values } from '../../quant/layout.ts'
import { roundToNearest } from '../../quant/round.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { gradients } from '../gradient.ts'
import { crossEntropy } from './cross-entropy.ts'
import { add, mul } from './elementwise.ts'
import { input } from './input.ts'
import { linear } from './linear.ts'
import { sum } from './reduce.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const [out, width, rows] = [10, 96, 3]
const symmetric = { asymmetric: false }
const formats: [string, BlockFormat][] = [
  ['4 bits', { bits: 4, blockSize: 32, ...symmetric }],
  ['4 bits, zero points', { bits: 4, blockSize: 16, asymmetric: true }],
  ['4 bits, zero points of an odd number of blocks', { bits: 4, blockSize: 32, asymmetric: true }],
  ['4 bits, offsets', { bits: 4, blockSize: 32, ...symmetric, offsets: true }],
  ['8 bits', { bits: 8, blockSize: 32, ...symmetric }],
  ['8 bits, zero points', { bits: 8, blockSize: 32, asymmetric: true }],
  ['8 bits, offsets', { bits: 8, blockSize: 16, ...symmetric, offsets: true }],
  ['8 bits, inputs in 8 bits', rowFormat([out, width])],
]

const matrix = (format: BlockFormat): QuantizedParameter =>
  roundToNearest([out, width], random(3).fillNormal(new Float32Array(out * width)), format)

/** The tensors that store a matrix, as a program has them for inputs. */
function feeds(name: string, { shape, format, packed, scales, zeroPoints, offsets }: QuantizedParameter): Values {
  const layout = blockLayout(shape, format)
  const names = quantizedNames(name)
  const numbers = layout.dtype === 'int8' ? new Int8Array(packed.slice().buffer) : packed
  if (numbers instanceof Int8Array) flipSigns(numbers)
  return {
    [names.packed]: { dtype: layout.dtype, shape: layout.packed, data: numbers },
    [names.scales]: { dtype: 'float32', shape: layout.scales, data: scales },
    ...(zeroPoints && { [names.zeroPoints]: { dtype: 'uint8', shape: layout.zeroPoints, data: zeroPoints } }),
    ...(offsets && { [names.offsets]: { dtype: 'float32', shape: layout.scales, data: offsets } }),
  } as Values
}

describe.each(formats)('%s', (_, format) => {
  const parameter = matrix(format)
  const shapes = new Map([['w.weight', parameter.shape]])
  const x = normal(5, [1, rows, width])
  const dy = normal(6, [1, rows, out])
  const build = () => {
    const w = createWeights(shapes, new Map([['w.weight', format]]), { exact: true })('w.weight')
    const inputs = { x: input('x', 'float32', [1, 'T', width]), dy: input('dy', 'float32', [1, 'T', out]) }
    const y = linear(inputs.x, w)
    const [dx] = gradients(sum(mul(y, inputs.dy)), [inputs.x])
    return { name: 'test', outputs: { y, dx } }
  }
  const check = (found: Record<string, TensorData>) => {
    const w = values(parameter)
    const close = (actual: TensorData, expected: (row: number, column: number) => number, columns: number) => {
      expect(actual.data.length).toBe(rows * columns)
      for (let i = 0; i < rows * columns; i++)
        expect(Number(actual.data[i])).toBeCloseTo(expected(Math.floor(i / columns), i % columns), 3)
    }
    const at = ({ data }: TensorData, i: number) => Number(data[i])
    const total = (count: number, term: (i: number) => number) =>
      Array.from({ length: count }, (_, i) => term(i)).reduce((a, b) => a + b)
    close(found.y, (i, j) => total(width, (k) => at(x, i * width + k) * w[j * width + k]), out)
    close(found.dx, (i, k) => total(out, (j) => at(dy, i * out + j) * w[j * width + k]), width)
  }

  it('is multiplied exactly where it is part of the session', async () => {
    const session = await loadInference(executor, build(), shapes, new Map([['w.weight', parameter]]), {
      optimize: false,
    })
    check(await session.run({ x, dy }, { y: null, dx: null }))
    await session.release()
  })

  it('is multiplied exactly where it is an input', async () => {
    const session = await executor.load(build(), { optimize: false })
    check(await session.run({ x, dy, ...feeds('w.weight', parameter) }, { y: null, dx: null }))
    await session.release()
  })
})

it.each([formats[0], formats[4]])('a head in %s has the gradients of its inputs', async (_, format) => {
  const head = matrix(format)
  const stored = feeds('head.weight', head)
  await checkGradients(executor, {
    values: {
      hidden: normal(7, [rows, width]),
      labels: int64([rows], [4, 9, 4]),
      weights: positive(8, [rows]),
      ...stored,
    },
    wanted: ['hidden'],
    build: ({ hidden, labels, weights }) => {
      const shapes = new Map([['head.weight', head.shape]])
      const matrix = createWeights(shapes, new Map([['head.weight', format]]), { exact: true })('head.weight')
      const { loss, logProbabilities } = crossEntropy(mul(hidden, 0.1), matrix, labels, weights)
      return add(loss, mul(sum(mul(logProbabilities, logProbabilities), [0, 1]), 0.01))
    },
  })
})
