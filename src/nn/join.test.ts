// Joined products against the same products one by one.
import { afterAll, expect, it } from 'vitest'
import { ModelProto } from '../../test/graph/onnx-model.ts'
import { random } from '../core/random.ts'
import type { BlockFormat, QuantizedParameter, TensorData } from '../core/types.ts'
import { add } from '../graph/ops/elementwise.ts'
import { input } from '../graph/ops/input.ts'
import { linear } from '../graph/ops/linear.ts'
import { rowFormat } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor, lower } from '../runtime/onnxruntime/executor.ts'
import { formatsOf, loadInference } from './inference.ts'
import { createWeights } from './weights.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const width = 64
const symmetric: BlockFormat = { bits: 4, blockSize: 32, asymmetric: false }
const formats: Record<string, BlockFormat> = {
  symmetric,
  'with zero points': { ...symmetric, asymmetric: true },
  'with offsets': { ...symmetric, offsets: true },
  'with inputs in 8 bits': rowFormat([0, width]),
}

function matrix(seed: number, out: number, format: BlockFormat): QuantizedParameter {
  const data = new Float32Array(out * width)
  random(seed).fillNormal(data)
  const parameter = roundToNearest([out, width], data, format.offsets ? { ...format, offsets: false } : format)
  if (!format.offsets) return parameter
  const offsets = Float32Array.from(parameter.scales, (scale) => -7.3 * scale)
  return { ...parameter, format, offsets }
}

const x: TensorData = { dtype: 'float32', shape: [1, 2, width], data: new Float32Array(2 * width) }
random(9).fillNormal(x.data as Float32Array)

it.each(Object.entries(formats))('%s: products of one input are one, with the same results', async (_, format) => {
  const parameters = new Map([
    ['a.weight', matrix(1, 12, format)],
    ['b.weight', matrix(2, 4, format)],
    ['c.weight', matrix(3, 8, format)],
    // Of another format, with a bias, and of another input.
    ['other.weight', matrix(4, 8, { ...symmetric, blockSize: 16 })],
    ['biased.weight', matrix(5, 8, format)],
    ['later.weight', matrix(6, 8, format)],
  ])
  const shapes = new Map([...parameters].map(([name, { shape }]) => [name, shape]))
  const weights = createWeights(shapes, formatsOf(parameters))
  const build = (names: readonly string[]) => {
    const h = input('x', 'float32', [1, 'T', width])
    const doubled = add(h, h)
    const bias = input('bias', 'float32', [8])
    const outputs = Object.fromEntries(
      names.map((name) => {
        const [z, b] = [name === 'later' ? doubled : h, name === 'biased' ? bias : undefined]
        return [name, linear(z, weights(`${name}.weight`), b)]
      }),
    )
    return { name: 'test', outputs }
  }
  let products = 0
  const counting: Executor = {
    ...executor,
    load(program, options) {
      const { graph } = ModelProto.decode(lower(program, options).model) as unknown as {
        graph: { node: { opType: string }[] }
      }
      products = graph.node.filter(({ opType }) => opType === 'MatMulNBits' || opType === 'QGemm').length
      return executor.load(program, options)
    },
  }
  const run = async (names: readonly string[]) => {
    const used = new Map(
      names.map((name): [string, QuantizedParameter] => [`${name}.weight`, parameters.get(`${name}.weight`)!]),
    )
    const session = await loadInference(
      counting,
      build(names),
      new Map([...used].map(([name, { shape }]) => [name, shape])),
      used,
    )
    const bias: TensorData = { dtype: 'float32', shape: [8], data: new Float32Array(8).fill(1) }
    const outputs = await session.run({ x, bias }, Object.fromEntries(names.map((name) => [name, null])))
    await session.release()
    return outputs
  }
  const alone: Record<string, TensorData> = {}
  for (const name of ['a', 'b', 'c', 'biased', 'later']) Object.assign(alone, await run([name]))
  const together = await run(['a', 'b', 'c', 'biased', 'later'])
  expect(products).toBe(3)
  expect(together).toEqual(alone)
  await run(['a', 'other'])
  expect(products).toBe(2)
})
