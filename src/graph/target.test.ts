// Programs lowered for onnxruntime-web: only products that WebGPU has kernels for, and the same values.
import { afterAll, describe, expect, it } from 'vitest'
import { distance } from '../../test/distance.ts'
import { ModelProto } from '../../test/graph/onnx-model.ts'
import { programsOf } from '../../test/graph/programs.ts'
import { tinyModels } from '../../test/models/every.ts'
import { random } from '../core/random.ts'
import type { TensorData } from '../core/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { exportOnnx, type Signature } from './program.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

interface Graph {
  node: { opType: string; attribute: { g?: Graph }[] }[]
}

/** Types of the nodes of a model, those in subgraphs too. */
function* typesOf(graph: Graph): Generator<string> {
  for (const { opType, attribute } of graph.node) {
    yield opType
    for (const { g } of attribute) if (g) yield* typesOf(g)
  }
}

const sizes: Record<string, number> = { B: 2, T: 3, C: 8, R: 4 }

/** Values for an input of a decoding program. */
function randomValue({ name, dtype, shape }: Signature, seed: number): TensorData {
  const dims = shape.map((dim) => (typeof dim === 'number' ? dim : sizes[dim]))
  const length = dims.reduce((a, b) => a * b, 1)
  const draw = random(seed)
  // Tokens, positions, blocks and rows are all small enough for each other.
  if (dtype === 'int64') {
    const value = (i: number) => (name === 'block_ends' ? 9 : name === 'cache_length' ? 5 : i % 3)
    return { dtype, shape: dims, data: BigInt64Array.from({ length }, (_, i) => BigInt(value(i))) }
  }
  if (dtype === 'uint8') return { dtype, shape: dims, data: Uint8Array.from({ length }, () => draw.integer(256)) }
  if (dtype === 'int8') return { dtype, shape: dims, data: Int8Array.from({ length }, () => draw.integer(256) - 128) }
  const data = draw.fillNormal(new Float32Array(length)).map((value) => value / 8)
  if (dtype === 'float32') return { dtype, shape: dims, data }
  // Of 16 bits: +-1 / 8 and 0.
  return {
    dtype,
    shape: dims,
    data: Uint16Array.from(data, (value) => [0x3000, 0xb000, 0][Math.floor(value * 64) & 1]),
  }
}

describe.each(tinyModels().map((model) => [model.config.model_type, model] as const))('%s', (_, model) => {
  const decoding = [...programsOf(model)].filter(([name]) => name.startsWith('decoding'))

  it.each(decoding)('%s', async (_, program) => {
    const results: Record<string, TensorData>[] = []
    for (const target of ['onnxruntime-node', 'onnxruntime-web'] as const) {
      const exported = exportOnnx(program, { target })
      const { graph } = ModelProto.toObject(ModelProto.decode(exported.model), { arrays: true }) as { graph: Graph }
      if (target === 'onnxruntime-web') expect([...typesOf(graph)]).not.toContain('FusedMatMul')
      const session = await executor.loadModel(exported.model, { optimize: false })
      const feeds = Object.fromEntries(exported.inputs.map((input, i) => [input.name, randomValue(input, i)]))
      results.push(await session.run(feeds, Object.fromEntries(exported.outputs.map(({ name }) => [name, null]))))
      await session.release()
    }
    const [node, web] = results.map(({ logits }) => logits.data as Float32Array)
    expect(node.every(Number.isFinite)).toBe(true)
    expect(distance(web, node)).toBeLessThan(1e-5)
  })
})
