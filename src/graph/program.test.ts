// What a program looks like as ONNX: names, order, bytes; and that it runs with other sizes than it was traced with.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { int64, normal } from '../../test/graph/gradient-check.ts'
import { ModelProto } from '../../test/graph/onnx-model.ts'
import type { TensorData } from '../core/types.ts'
import { blockDiffusion } from '../diffusion/attention.ts'
import { createModel } from '../models/index.ts'
import type { Weight } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from '../train/graph.ts'
import { add, mul, neg } from './ops/elementwise.ts'
import { constant, input, scalar } from './ops/input.ts'
import { gatherRows } from './ops/layout.ts'
import { linear } from './ops/linear.ts'
import { dequantize } from './ops/quantized.ts'
import { sum } from './ops/reduce.ts'
import { describe as describeProgram, exportOnnx } from './program.ts'

const executor = createExecutor({ threads: 1 })
const folder = mkdtempSync(join(tmpdir(), 'unmask-program-'))
afterAll(async () => {
  await executor.dispose()
  rmSync(folder, { recursive: true })
})

interface Decoded {
  graph: {
    name: string
    node: { name: string; opType: string; input: string[]; output: string[] }[]
    initializer: { name: string; dims: number[]; externalData: { key: string; value: string }[] }[]
    input: { name: string }[]
    output: { name: string }[]
  }
}
const decode = (model: Uint8Array): Decoded =>
  ModelProto.toObject(ModelProto.decode(model), { longs: Number, arrays: true }) as Decoded

const tiny = () =>
  createModel({
    model_type: 'llama',
    vocab_size: 11,
    hidden_size: 8,
    intermediate_size: 12,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    tie_word_embeddings: true,
  })

const objective = () =>
  objectiveProgram(
    tiny(),
    { kind: 'bdlm', blockSize: 4, copies: 1, aligned: true },
    { rows: 2, length: 8 },
    { gradients: true },
  )

const float = (shape: number[], values: number[]): TensorData => ({
  dtype: 'float32',
  shape,
  data: Float32Array.from(values),
})

describe('export', () => {
  it('gives the same bytes each time', () => {
    expect(exportOnnx(objective()).model).toEqual(exportOnnx(objective()).model)
  })

  it('names inputs and outputs as the program does, in order', () => {
    const { model, inputs, outputs } = exportOnnx(objective())
    const { graph } = decode(model)
    expect(graph.name).toBe('llama-bdlm')
    expect(graph.input.map(({ name }) => name)).toEqual(inputs.map(({ name }) => name))
    expect(graph.output.map(({ name }) => name)).toEqual(outputs.map(({ name }) => name))
    const parameters = [...tiny().parameters.keys()]
    expect(outputs.map(({ name }) => name)).toEqual(['loss', ...parameters.map((name) => `grad.${name}`)])
    expect(inputs.map(({ name }) => name).sort()).toEqual(
      ['input_ids', 'position_ids', 'document_ids', 'loss_index', 'labels', 'loss_weights', ...parameters].sort(),
    )
    expect(inputs.find(({ name }) => name === 'labels')).toEqual({ name: 'labels', dtype: 'int64', shape: ['M'] })
  })

  it('names every value once, before it is used', () => {
    const { graph } = decode(exportOnnx(objective()).model)
    const known = new Set(['', ...graph.input.map(({ name }) => name), ...graph.initializer.map(({ name }) => name)])
    for (const node of graph.node) {
      for (const name of node.input) expect(known.has(name), `${node.name} uses ${name}`).toBe(true)
      for (const name of node.output) {
        expect(known.has(name), `${name} is defined twice`).toBe(false)
        known.add(name)
      }
    }
    expect(new Set(graph.node.map(({ name }) => name)).size).toBe(graph.node.length)
    for (const { name } of graph.output) expect(known.has(name)).toBe(true)
  })

  it('has no constant that nothing uses', () => {
    // One block in one tile: which earlier blocks are seen is not asked for.
    const x = input('x', 'float32', [2, 16, 4])
    const layout = { documents: input('d', 'int64', [1, 16]), positions: input('p', 'int64', [1, 16]) }
    const block = { copies: 1, blockSize: 16, aligned: true }
    const y = blockDiffusion(layout, block, { heads: 1, kvHeads: 1 })(x, x, x)
    for (const program of [objective(), { name: 'one-block', outputs: { y } }]) {
      const { graph } = decode(exportOnnx(program).model)
      const used = new Set(graph.node.flatMap((node) => node.input))
      expect(graph.initializer.map(({ name }) => name).filter((name) => !used.has(name))).toEqual([])
    }
  })

  it('says in a node name where in the model it comes from', () => {
    const names = decode(exportOnnx(objective()).model).graph.node.map(({ name }) => name)
    expect(names).toContainEqual(
      expect.stringMatching(/^model\.layers\.1\.self_attn\/blockDiffusionAttention\/Softmax_\d+$/),
    )
    expect(names).toContainEqual(expect.stringMatching(/^gradient\.model\.layers\.0\.mlp\/matmul\/\w+_\d+$/))
  })

  it('keeps a high-level operation as one traced node', () => {
    const text = describeProgram(objective()).split('\n')
    const count = (name: string) => text.filter((line) => line.includes(`: ${name}(`)).length
    expect(count('blockDiffusionAttention')).toBe(2)
    expect(count('blockDiffusionAttentionGradient')).toBe(2)
    expect(count('rmsNorm')).toBe(4)
    expect(count('swiglu')).toBe(2)
    expect(text.filter((line) => line.startsWith('crossEntropy('))).toHaveLength(1)
    expect(text).toContainEqual(expect.stringMatching(/^model\.layers\.0\.mlp: swiglu\(\[4, 8, 12\]/))
  })

  it('attends only where the mask may let it: tiles, and the clean copy', () => {
    const x = input('x', 'float32', [4, 32, 8])
    const layout = { documents: input('d', 'int64', [2, 32]), positions: input('p', 'int64', [2, 32]) }
    const attend = blockDiffusion(layout, { copies: 1, blockSize: 16, aligned: true }, { heads: 2, kvHeads: 2 })
    // Of 64 keys in both copies a query meets its tile's 16, and those of the second tile the clean 16 before it.
    expect(
      attend(x, x, x)
        .node.outputs.slice(1)
        .map(({ shape }) => shape.at(-1)),
    ).toEqual([16, 16])
  })
})

describe('a program', () => {
  const x = input('x', 'float32', ['N', 2])
  const w = input('w', 'float32', [3, 2])

  it('runs with any size where it was traced with a name', async () => {
    const { model } = exportOnnx({ name: 'p', outputs: { y: linear(x, w), total: sum(x) } })
    const session = await executor.loadModel(model)
    for (const n of [1, 5, 2]) {
      const { y, total } = await session.run({ x: normal(n, [n, 2]), w: normal(9, [3, 2]) }, { y: null, total: null })
      expect(y.shape).toEqual([n, 3])
      expect(total.shape).toEqual([])
    }
    await session.release()
  })

  it('may give one tensor under two names, an input, and a constant', async () => {
    const y = neg(w)
    const outputs = { a: y, b: y, same: w, two: scalar(2), sum: add(y, w) }
    const session = await executor.load({ name: 'p', outputs }, { optimize: false })
    const result = await session.run(
      { w: float([3, 2], [1, 2, 3, 4, 5, 6]) },
      { a: null, b: null, same: null, two: null, sum: null },
    )
    expect(result.a.data).toEqual(Float32Array.of(-1, -2, -3, -4, -5, -6))
    expect(result.b.data).toEqual(result.a.data)
    expect(result.same.data).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6))
    expect(result.two.data).toEqual(Float32Array.of(2))
    expect(result.sum.data).toEqual(new Float32Array(6))
    await session.release()
  })

  it('may not use a name for an input and an output', () => {
    expect(() => exportOnnx({ name: 'p', outputs: { w: neg(w) } })).toThrow('w is both an input and an output')
  })

  it('may hold parameters itself', async () => {
    const program = { name: 'p', outputs: { y: linear(x, w) } }
    const { model, inputs } = exportOnnx(program, { embed: new Map([['w', float([3, 2], [1, 0, 0, 1, 1, 1])]]) })
    expect(inputs.map(({ name }) => name)).toEqual(['x'])
    const session = await executor.loadModel(model)
    const { y } = await session.run({ x: float([1, 2], [2, 3]) }, { y: null })
    expect(y.data).toEqual(Float32Array.of(2, 3, 5))
    await session.release()
  })

  it('may refer to parameters in a file beside it', async () => {
    const program = { name: 'p', outputs: { y: linear(x, w) } }
    const tensors = new Map([['w', { offset: 8, length: 24 }]])
    const { model, inputs, externalParameters } = exportOnnx(program, { external: { location: 'weights', tensors } })
    expect(inputs.map(({ name }) => name)).toEqual(['x'])
    expect(externalParameters).toEqual([{ name: 'w', dtype: 'float32', shape: [3, 2] }])
    writeFileSync(join(folder, 'weights'), Float32Array.of(9, 9, 1, 0, 0, 1, 1, 1))
    const session = await executor.loadModel(model, { externalFolder: folder })
    const { y } = await session.run({ x: float([1, 2], [2, 3]) }, { y: null })
    expect(y.data).toEqual(Float32Array.of(2, 3, 5))
    await session.release()
  })

  it('may refer to one in another shape too, without a copy', async () => {
    const stored = {
      packed: input('w', 'uint8', [2, 1, 8]),
      scales: input('s', 'float32', [2, 1]),
      zeroPoints: undefined,
      offsets: undefined,
    }
    const matrix = dequantize(stored, { format: { bits: 4, blockSize: 16, asymmetric: false }, width: 16 })
    const y = gatherRows(matrix, input('i', 'int64', ['N']))
    const tensors = new Map([['w', { offset: 0, length: 16 }]])
    const { model } = exportOnnx({ name: 'p', outputs: { y } }, { external: { location: 'weights', tensors } })
    expect(decode(model).graph.node.map(({ opType }) => opType)).toEqual(['GatherBlockQuantized'])
    writeFileSync(join(folder, 'weights'), new Uint8Array(16).fill(0x97))
    const session = await executor.loadModel(model, { externalFolder: folder })
    const result = await session.run({ i: int64([1], [1]), s: float([2, 1], [1, 2]) }, { y: null })
    expect(result.y.data).toEqual(Float32Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? -2 : 2)))
    await session.release()
  })

  it('may take values when it is loaded, in each of the shapes that are used', async () => {
    const stored = {
      packed: input('w', 'uint8', [2, 1, 8]),
      scales: input('s', 'float32', [2, 1]),
      zeroPoints: undefined,
      offsets: undefined,
    }
    const matrix = dequantize(stored, { format: { bits: 4, blockSize: 16, asymmetric: false }, width: 16 })
    const rows = gatherRows(matrix, input('i', 'int64', ['N']))
    const outputs = { rows, y: linear(rows, matrix) }
    const { model, inputs, loaded } = exportOnnx({ name: 'p', outputs }, { loaded: new Set(['w', 's', 'unused']) })
    expect(inputs.map(({ name }) => name)).toEqual(['i'])
    const uses = loaded.get('w')!
    expect(uses.map(({ shape }) => shape)).toEqual([
      [2, 1, 8],
      [2, 8],
    ])
    expect([...loaded.keys()].sort()).toEqual(['s', 'w'])
    const weights: Weight[] = [
      { dtype: 'uint8', data: new Uint8Array(16).fill(0x97), uses },
      { dtype: 'float32', data: Float32Array.of(1, 2), uses: loaded.get('s')! },
    ]
    const session = await executor.loadModel(model, { weights })
    const result = await session.run({ i: int64([1], [1]) }, { rows: null, y: null })
    // Numbers 7 and 9 around 8, times 2.
    expect(result.rows.data).toEqual(Float32Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? -2 : 2)))
    expect(result.y.data).toEqual(Float32Array.of(32, 64))
    await session.release()
  })

  it('shares small constants', () => {
    const y = add(mul(x, 2), mul(x, scalar(2)))
    expect(decode(exportOnnx({ name: 'p', outputs: { y } }).model).graph.initializer).toHaveLength(1)
  })

  it('keeps constants of different types and shapes apart', async () => {
    const one = (shape: number[]) => constant(float(shape, [1]))
    const whole = constant(int64([1], [1]))
    const outputs = { a: one([]), b: one([1]), c: one([1, 1]), d: whole }
    const session = await executor.load({ name: 'p', outputs })
    const result = await session.run({}, { a: null, b: null, c: null, d: null })
    expect([result.a.shape, result.b.shape, result.c.shape]).toEqual([[], [1], [1, 1]])
    expect(result.d.dtype).toBe('int64')
    await session.release()
  })
})
