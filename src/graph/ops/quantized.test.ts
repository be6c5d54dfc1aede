// Products and rows of quantised matrices against what they stand for in float32.
import { afterAll, describe, expect, it } from 'vitest'
import { random } from '../../core/random.ts'
import type { BlockFormat, QuantizedParameter, TensorData } from '../../core/types.ts'
import { createWeights } from '../../nn/weights.ts'
import { blockLayout, emptyQuantized, flipSigns, rowFormat, dequantize as values } from '../../quant/layout.ts'
import { roundToNearest } from '../../quant/round.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { exportOnnx } from '../program.ts'
import type { Tensor } from '../tensor.ts'
import { neg } from './elementwise.ts'
import { input } from './input.ts'
import { gatherRows } from './layout.ts'
import { linear } from './linear.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const [out, width] = [12, 128]
const formats = ([4, 8] as const).flatMap((bits) =>
  [16, 32, 64, 128].flatMap((blockSize) =>
    [false, true].map((asymmetric): BlockFormat => ({ bits, blockSize, asymmetric })),
  ),
)
formats.push(rowFormat([out, width]))
const nameOf = ({ bits, blockSize, asymmetric, activations }: BlockFormat) =>
  activations
    ? '8 bits, inputs in 8 bits'
    : `${bits} bits, ${asymmetric ? 'asymmetric' : 'symmetric'}, in blocks of ${blockSize}`

function matrix(format: BlockFormat): QuantizedParameter {
  const data = new Float32Array(out * width)
  random(3).fillNormal(data)
  return roundToNearest([out, width], data, format)
}

/** Runs what `build` makes of the matrix, whose parts are constants of the program. */
async function run(parameter: QuantizedParameter, feeds: Record<string, TensorData>, build: (w: Tensor) => Tensor) {
  const { shape, format, packed, scales, zeroPoints, offsets } = parameter
  const weights = createWeights(new Map([['w.weight', shape]]), new Map([['w.weight', format]]))
  const y = build(weights('w.weight'))
  const layout = blockLayout(shape, format)
  const numbers = packed.slice()
  if (layout.dtype === 'int8') flipSigns(numbers)
  const embed = new Map<string, TensorData>([
    ['w.weight', { dtype: layout.dtype, shape: layout.packed, data: numbers }],
    ['w.scales', { dtype: 'float32', shape: layout.scales, data: scales }],
  ])
  if (zeroPoints) embed.set('w.zero_points', { dtype: 'uint8', shape: layout.zeroPoints, data: zeroPoints })
  if (offsets) embed.set('w.minima', { dtype: 'float32', shape: layout.scales, data: offsets })
  const session = await executor.loadModel(exportOnnx({ name: 'test', outputs: { y } }, { embed }).model)
  const outputs = await session.run(feeds, { y: null })
  await session.release()
  return outputs.y
}

describe.each(formats.map((format) => [nameOf(format), format] as const))('%s', (_, format) => {
  it('linear', async () => {
    const rows = 3
    // Whole numbers up to 127, one of which is in each block: rounding activations to 8 bits changes nothing.
    const x = Float32Array.from({ length: rows * width }, (_, i) => (i % 16 === 0 ? 127 : ((i * 37) % 255) - 127))
    const bias = Float32Array.from({ length: out }, (_, i) => i - 5)
    const parameter = matrix(format)
    const y = await run(
      parameter,
      {
        x: { dtype: 'float32', shape: [1, rows, width], data: x },
        b: { dtype: 'float32', shape: [out], data: bias },
      },
      (w) => linear(input('x', 'float32', [1, 'T', width]), w, input('b', 'float32', [out])),
    )
    expect(y.shape).toEqual([1, rows, out])
    const w = values(parameter)
    for (let i = 0; i < rows * out; i++) {
      const [row, column] = [Math.floor(i / out), i % out]
      let expected = bias[column]
      for (let k = 0; k < width; k++) expected += x[row * width + k] * w[column * width + k]
      expect(Math.abs(Number(y.data[i]) - expected)).toBeLessThan(1e-2)
    }
  })

  it('gatherRows', async () => {
    const parameter = matrix(format)
    const index: TensorData = { dtype: 'int64', shape: [1, 4], data: BigInt64Array.of(5n, 0n, 11n, 5n) }
    const y = await run(parameter, { i: index }, (w) => gatherRows(w, input('i', 'int64', [1, 'T'])))
    const w = values(parameter)
    const row = (i: number) => [...w.subarray(i * width, (i + 1) * width)]
    expect(y.shape).toEqual([1, 4, width])
    expect([...(y.data as Float32Array)]).toEqual([5, 0, 11, 5].flatMap(row))
  })
})

describe('inputs in 8 bits', () => {
  const format = rowFormat([out, width])
  const parameter = matrix(format)
  const w = values(parameter)
  /** Products of the rows of `x` with the matrix. */
  const products = async (x: Float32Array) => {
    const feeds = { x: { dtype: 'float32' as const, shape: [1, x.length / width, width], data: x } }
    const y = await run(parameter, feeds, (matrix) => linear(input('x', 'float32', [1, 'T', width]), matrix))
    return y.data as Float32Array
  }
  const x = random(8).fillNormal(new Float32Array(5 * width))

  it('are rounded row by row, so that a row gives what it gives alone', async () => {
    // Rows of very different sizes, which a scale for all would round to nothing.
    for (let i = 0; i < x.length; i++) x[i] *= 1000 ** Math.floor(i / width)
    const together = await products(x)
    for (let row = 0; row < 5; row++) {
      const alone = await products(x.slice(row * width, (row + 1) * width))
      expect(together.slice(row * out, (row + 1) * out)).toEqual(alone)
      for (let column = 0; column < out; column++) {
        let [expected, size] = [0, 0]
        for (let k = 0; k < width; k++) {
          expected += x[row * width + k] * w[column * width + k]
          size += (x[row * width + k] * w[column * width + k]) ** 2
        }
        expect(Math.abs(alone[column] - expected)).toBeLessThan(0.04 * Math.sqrt(size))
      }
    }
  })

  it('of a row of zeros give zeros', async () => {
    for (const value of await products(new Float32Array(2 * width))) expect(Math.abs(value)).toBe(0)
  })

  it('of no rows give none', async () => {
    const x: TensorData = { dtype: 'float32', shape: [0, width], data: new Float32Array(0) }
    const y = await run(parameter, { x }, (matrix) => linear(input('x', 'float32', ['R', width]), matrix))
    expect(y.shape).toEqual([0, out])
  })

  it('are multiplied exactly where sums of two products leave 16 bits', async () => {
    const largest = {
      ...parameter,
      packed: new Uint8Array(out * width).fill(255),
      scales: new Float32Array(out).fill(1),
    }
    const feeds = { x: { dtype: 'float32' as const, shape: [2, width], data: new Float32Array(2 * width).fill(127) } }
    const y = await run(largest, feeds, (matrix) => linear(input('x', 'float32', ['R', width]), matrix))
    for (const value of y.data) expect(Number(value) / (127 * 127 * width)).toBeCloseTo(1, 6)
  })
})

describe('blocks with offsets', () => {
  const parameter = emptyQuantized([out, width], { bits: 4, blockSize: 32, asymmetric: false, offsets: true })
  const draw = random(7)
  for (let i = 0; i < parameter.packed.length; i++) parameter.packed[i] = draw.integer(256)
  draw.fillNormal(parameter.scales)
  draw.fillNormal(parameter.offsets!)
  const w = values(parameter)

  it.each([[[3, width]], [[1, 3, width]]])('linear of %j', async (shape) => {
    const x = Float32Array.from({ length: 3 * width }, (_, i) => (i % 16 === 0 ? 127 : ((i * 37) % 255) - 127))
    const bias = Float32Array.from({ length: out }, (_, i) => i - 5)
    const feeds: Record<string, TensorData> = {
      x: { dtype: 'float32', shape, data: x },
      b: { dtype: 'float32', shape: [out], data: bias },
    }
    const y = await run(parameter, feeds, (matrix) =>
      linear(input('x', 'float32', [...shape.slice(0, -2), 'T', width]), matrix, input('b', 'float32', [out])),
    )
    for (let i = 0; i < 3 * out; i++) {
      const [row, column] = [Math.floor(i / out), i % out]
      let expected = bias[column]
      let size = 0
      for (let k = 0; k < width; k++) {
        const term = x[row * width + k] * w[column * width + k]
        expected += term
        size += Math.abs(term)
      }
      expect(Math.abs(Number(y.data[i]) - expected)).toBeLessThan(1e-6 * size)
    }
  })

  it('linear of no rows', async () => {
    const x: TensorData = { dtype: 'float32', shape: [0, width], data: new Float32Array(0) }
    const y = await run(parameter, { x }, (matrix) => linear(input('x', 'float32', ['R', width]), matrix))
    expect(y.shape).toEqual([0, out])
  })

  it.each([[[4]], [[1, 4]]])('gatherRows of %j', async (shape) => {
    const index: TensorData = { dtype: 'int64', shape, data: BigInt64Array.of(5n, 0n, 11n, 5n) }
    const y = await run(parameter, { i: index }, (matrix) =>
      gatherRows(matrix, input('i', 'int64', [...shape.slice(0, -1), 'T'])),
    )
    expect(y.shape).toEqual([...shape, width])
    for (const [at, row] of [5, 0, 11, 5].entries())
      for (let i = 0; i < width; i++) expect(Number(y.data[at * width + i])).toBeCloseTo(w[row * width + i], 4)
  })
})

it('refuses what is not such a matrix, and any other use of one', async () => {
  const format = { bits: 4, blockSize: 32, asymmetric: false } as const
  expect(() => createWeights(new Map([['w', [4, 40]]]), new Map([['w', format]]))('w')).toThrow('whole blocks of 32')
  const w = createWeights(new Map([['w', [4, 64]]]), new Map([['w', format]]))('w')
  expect(w.shape).toEqual([4, 64])
  expect(() => linear(input('x', 'float32', ['T', 32]), w)).toThrow("the input's last size 32 is not the weight's 64")
  expect(() => exportOnnx({ name: 'test', outputs: { y: neg(w) } })).toThrow('linear and gatherRows')
})
