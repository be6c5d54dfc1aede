// Programs as files: what is written is read as the same program, and whatever else a file says is refused.
import { readdirSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { programsOf } from '../../test/graph/programs.ts'
import { tinyModels } from '../../test/models/every.ts'
import { UserError } from '../core/types.ts'
import { encodeTensors } from '../formats/safetensors.ts'
import { objectives } from '../objectives/index.ts'
import { adamw } from './ops/adamw.ts'
import { attention } from './ops/attention/tiled.ts'
import { crossEntropy } from './ops/cross-entropy.ts'
import { differs, div, exp } from './ops/elementwise.ts'
import { operations } from './ops/index.ts'
import { constant, input, inputOperation, scalar } from './ops/input.ts'
import { cast, concat, gatherRows } from './ops/layout.ts'
import { dequantize } from './ops/quantized.ts'
import { sumSquares } from './ops/reduce.ts'
import { exportOnnx, type Program, topologicalOrder } from './program.ts'
import { parseProgram, type SerializedProgram, serializeProgram } from './serialize.ts'
import type { Tensor } from './tensor.ts'

const float = (name: string, shape: (number | string)[]): Tensor => input(name, 'float32', shape)

/** Operations that no model's program has, or not in all of their forms. */
const others: Record<string, () => Tensor[]> = {
  optimiser() {
    const [p, g, m, v] = ['p', 'g', 'm', 'v'].map((name) => float(name, [3, 4]))
    const [gradientScale, decay, stepSize, epsilon] = ['a', 'b', 'c', 'd'].map((name) => float(name, []))
    const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, log: () => {} }
    return [...adamw(p, g, m, v, { gradientScale, decay, stepSize, epsilon }, options), sumSquares(g, [1])]
  },
  values: () => [differs(float('x', ['N']), 0.1), div(exp(float('x2', [])), Math.PI)],
  types: () => [cast(input('x', 'int64', ['N']), 'int32'), concat([float('a', ['A', 2]), float('b', ['B', 2])], 0)],
  attention() {
    const [q, k, v] = [float('q', [4, 6, 8]), float('k', [4, 6, 4]), float('v', [4, 6, 4])]
    return [attention(q, k, v, { copies: 2, tile: 3 }, { heads: 4, kvHeads: 2 })]
  },
  'quantised head'() {
    const stored = {
      packed: input('head', 'uint8', [12, 2, 8]),
      scales: float('head.scales', [12, 2]),
      zeroPoints: input('head.zero_points', 'uint8', [12, 1]),
      offsets: undefined,
    }
    const head = dequantize(stored, { format: { bits: 4, blockSize: 16, asymmetric: true }, width: 32 })
    const { loss } = crossEntropy(float('hidden', ['M', 32]), head, input('labels', 'int64', ['M']), float('w', ['M']))
    return [loss, gatherRows(head, input('ids', 'int64', ['B', 'T']))]
  },
  constants: () => [
    constant({ dtype: 'bool', shape: [3], data: Uint8Array.of(1, 0, 1) }),
    constant({ dtype: 'int64', shape: [2, 1], data: BigInt64Array.of(-(2n ** 62n), 7n) }),
    constant({ dtype: 'float16', shape: [1], data: Uint16Array.of(0x7c00) }),
    constant({ dtype: 'float32', shape: [0, 2], data: new Float32Array(0) }),
    scalar(Number.NEGATIVE_INFINITY),
    scalar(-0),
    scalar(0.1),
  ],
}

function* programs(): Generator<[string, Program]> {
  for (const model of tinyModels())
    for (const [name, program] of programsOf(model)) yield [`${model.config.model_type}, ${name}`, program]
  for (const [name, make] of Object.entries(others))
    yield [name, { name, outputs: Object.fromEntries(make().map((tensor, i) => [`y${i}`, tensor])) }]
}

describe('a program that is written and read again', () => {
  const all = [...programs()]

  it.each(all)('%s: gives the same ONNX model, byte by byte, and the same file', (_, program) => {
    const written = serializeProgram(program)
    const read = parseProgram(written)
    const [before, after] = [exportOnnx(program), exportOnnx(read)]
    expect(Buffer.compare(before.model, after.model)).toBe(0)
    expect({ ...after, model: undefined }).toEqual({ ...before, model: undefined })
    const again = serializeProgram(read)
    expect(again.json).toBe(written.json)
    expect(Buffer.compare(again.constants, written.constants)).toBe(0)
    for (const node of topologicalOrder(Object.values(program.outputs))) {
      const { outputs } = node.operation
      if (!outputs.some((name) => /[.?]$/.test(name))) expect(node.outputs).toHaveLength(outputs.length)
    }
  })

  it('may be of any objective', () => {
    const names = all.map(([, { name }]) => name)
    for (const kind of Object.keys(objectives))
      expect(names.filter((name) => name.endsWith(`-${kind}`))).not.toEqual([])
  })

  it('may have any operation', async () => {
    // Whatever a file of src/graph/ops defines, index.ts has it.
    const known = operations.size
    const files = readdirSync(new URL('./ops', import.meta.url), { recursive: true, encoding: 'utf8' })
    for (const file of files.filter((name) => /(?<!\.test)\.ts$/.test(name)))
      await import(/* @vite-ignore */ new URL(`./ops/${file}`, import.meta.url).href)
    expect(operations.size).toBe(known)
    // A quantised matrix is part of the operation that uses it, and products are joined for ONNX Runtime alone.
    const inside = ['dequantize', 'joinedLinear']
    const nodes = all.flatMap(([, program]) => topologicalOrder(Object.values(program.outputs)))
    const seen = new Set(nodes.map(({ operation }) => operation.name))
    expect([...operations.keys()].filter((name) => !seen.has(name)).sort()).toEqual(inside)
  })

  it('keeps the names and sizes of inputs and outputs, and where a node was traced', () => {
    const [model] = tinyModels()
    const [[, program]] = programsOf(model)
    const read = parseProgram(serializeProgram(program))
    expect(read.name).toBe('llama-decode')
    expect(Object.keys(read.outputs)).toEqual(Object.keys(program.outputs))
    const nodes = topologicalOrder(Object.values(read.outputs))
    expect(nodes.map(({ scope }) => scope)).toContain('model.layers.1.self_attn')
    const inputs = nodes.filter((node) => node.operation === (inputOperation as unknown))
    expect(inputs.map(({ attributes }) => attributes)).toContainEqual({
      name: 'input_ids',
      dtype: 'int64',
      shape: ['B', 'T'],
    })
  })
})

it('is not written with attributes that are not plain data', () => {
  const x = input('x', 'float32', [Number.NaN])
  expect(() => serializeProgram({ name: 'odd', outputs: { x } })).toThrow('input: its attributes cannot be written')
})

describe('what is read', () => {
  const example = (): SerializedProgram => {
    const x = float('x', ['N', 2])
    return serializeProgram({ name: 'sum', outputs: { y: div(x, 2), z: concat([x, x], 1) } })
  }
  const { json, constants } = example()
  const changed = (from: string | RegExp, to: string): SerializedProgram => {
    expect(json).toMatch(from)
    return { json: json.replace(from, to), constants }
  }

  it.each<[string, SerializedProgram, string]>([
    ['no JSON', { json: '{', constants }, 'p.json: not valid JSON'],
    ['another file', { json: '{"a": 1}', constants }, 'p.json: not a program: format'],
    ['another version', changed('"version":1', '"version":2'), 'p.json: not a program: version'],
    ['an unknown key', changed('"name":"sum"', '"name":"sum","more":1'), 'not a program: Unrecognized key: "more"'],
    ['an unknown operation', changed('"div"', '"divide"'), 'p.json: node 2 (divide): there is no such operation'],
    [
      'a property of every object',
      changed('"div"', '"constructor"'),
      'node 2 (constructor): there is no such operation',
    ],
    [
      'a later value',
      changed('"inputs":[0,1]', '"inputs":[0,2]'),
      'node 2 (div): input 2 is not a value of a node before',
    ],
    ['too few inputs', changed('"inputs":[0,1]', '"inputs":[0]'), 'node 2 (div): it takes a, b; there are 1'],
    ['too many inputs', changed('"inputs":[0,1]', '"inputs":[0,1,1]'), 'node 2 (div): it takes a, b; there are 3'],
    ['an unknown attribute', changed('{"axis":1}', '{"axis":1,"b":2}'), 'attributes: Unrecognized key: "b"'],
    ['a wrong attribute', changed('{"axis":1}', '{"axis":"x"}'), 'node 3 (concat): attributes: axis: Invalid input'],
    [
      'inputs that do not fit',
      changed('{"axis":1}', '{"axis":7}'),
      'node 3 (concat): concat(float32[N, 2], float32[N, 2])',
    ],
    [
      'another shape',
      changed('"shape":["N",4]', '"shape":["N",5]'),
      'it gives float32[N, 4], the file says float32[N, 5]',
    ],
    [
      'no such constant',
      changed('constant.0', 'constant.1'),
      'node 1 (constant): the constants have no tensor "constant.1"',
    ],
    [
      'no such value',
      changed(/"name":"z","value":3/, '"name":"z","value":4'),
      'p.json: output "z": there is no value 4',
    ],
    ['an output twice', changed('"name":"z"', '"name":"y"'), 'p.json: there are two outputs "y"'],
    [
      'a key twice',
      changed('"name":"sum"', '"name":"sum","name":"a"'),
      'p.json: not valid JSON: duplicate name "name"',
    ],
    ['deep lists', changed('{"axis":1}', '['.repeat(9) + ']'.repeat(9)), 'not valid JSON: nested deeper than 8 levels'],
    ['other constants', { json, constants: new Uint8Array(3) }, 'p.json: constants: not a safetensors file'],
    ['an empty list of inputs', { json: json.replace('"inputs":[0,0]', '"inputs":[]'), constants }, 'node 3 (concat)'],
    [
      'constants of another shape',
      {
        json,
        constants: encodeTensors(new Map([['constant.0', { dtype: 'int8', shape: [1], data: Int8Array.of(1) }]])),
      },
      'node 1 (constant): it gives int8[1], the file says float32[]',
    ],
    [
      'an input twice',
      {
        json: serializeProgram({ name: 'twice', outputs: { a: float('x', [1]), b: float('x', [2]) } }).json,
        constants,
      },
      'node 1 (input): there are two inputs "x"',
    ],
  ])('is refused where it has %s', (_, file, message) => {
    expect(() => parseProgram(file, 'p.json')).toThrow(UserError)
    expect(() => parseProgram(file, 'p.json')).toThrow(message)
  })

  it('is a program or a UserError, whatever is changed in it', () => {
    const [model] = tinyModels()
    const files = [...programsOf(model)].map(([, program]) => serializeProgram(program))
    const scraps = fc.constantFrom('', '0', '-1', '1e999', '99', 'null', '[]', '{}', '"B"', '"x"', 'true', '[1]', ',')
    fc.assert(
      fc.property(fc.constantFrom(...files), fc.nat(), scraps, (file, at, scrap) => {
        const tokens = file.json.match(/"[^"]*"|[-\d.e]+|[[\]{},:]|\w+/g)!
        tokens[at % tokens.length] = scrap
        try {
          exportOnnx(parseProgram({ ...file, json: tokens.join('') }))
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
        }
      }),
      { numRuns: 300 },
    )
  })
})
