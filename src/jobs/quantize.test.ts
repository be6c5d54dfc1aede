// Quantising the tiny model: what is written, read again and refused.
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { float32Tensor, ggufFile, smallLlama } from '../../test/checkpoint/gguf-file.ts'
import { ModelProto } from '../../test/graph/onnx-model.ts'
import { quantizedTypes } from '../checkpoint/gguf-dequantize.ts'
import { inspectCheckpoint, openCheckpoint, type WritableTensor, writeSafetensors } from '../checkpoint/index.ts'
import { load, loadForInference } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import { type BlockFormat, type InferenceParameter, UserError } from '../core/types.ts'
import { createForward } from '../decode/forward.ts'
import type { Model } from '../models/index.ts'
import { rowFormat } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor, lower } from '../runtime/onnxruntime/executor.ts'
import { quantize } from './quantize.ts'
import { tinyModel } from './quickstart.ts'

/** `toEqual` takes seconds for what large arrays hold. */
const expectSame = (found: unknown, expected: unknown) => expect(isDeepStrictEqual(found, expected)).toBe(true)

const folder = mkdtempSync(join(tmpdir(), 'unmask-quantize-'))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

describe('a quantised folder', () => {
  it.each([
    { bits: 4, groupSize: 32, symmetric: true },
    { bits: 4, groupSize: 64, symmetric: false },
    { bits: 8, groupSize: 128, symmetric: true },
    { bits: 8, groupSize: 16, symmetric: false },
    { bits: 4, groupSize: 32, offsets: true },
    { bits: 8, groupSize: 64, offsets: true },
    { bits: 8, activations: 8 },
  ] as const)('holds what rounding gives: %o', async (options) => {
    const out = at('model')
    const result = await quantize({ model: tinyModel, out, force: true, ...options })
    const original = await load(tinyModel)
    const checkpoint = await openCheckpoint(out)
    expect([...checkpoint.tensors.keys()]).toEqual([...original.parameters.keys()])
    const formatOf = (shape: readonly number[]): BlockFormat => {
      if ('activations' in options) return rowFormat(shape)
      const { bits, groupSize: blockSize } = options
      return 'offsets' in options
        ? { bits, blockSize, asymmetric: false, offsets: true }
        : { bits, blockSize, asymmetric: !options.symmetric }
    }
    for (const [name, { shape, data }] of original.parameters)
      if (shape.length === 2)
        expectSame(await checkpoint.readQuantized(name), roundToNearest(shape, data, formatOf(shape)))
      else expectSame(await checkpoint.read(name), data)
    await checkpoint.close()
    expect(result.error).toBeGreaterThan(0)
    expect(result.error).toBeLessThan(options.bits === 4 ? 0.15 : 0.02)
    expect(result.bytes).toBeLessThan(result.floatBytes * (options.bits === 4 ? 0.21 : 0.4))
  })

  it.each([{}, { symmetric: false }, { offsets: true }, { bits: 8, activations: 8 }] as const)(
    'is mapped with products of one input as one: %o',
    async (options) => {
      const out = at('joined')
      await quantize({ model: tinyModel, out, force: true, ...options })
      const { model, parameters } = await loadForInference(out)
      const executor = createExecutor({ threads: 1 })
      const types: string[] = []
      const reading: Executor = {
        ...executor,
        load(program, settings) {
          const { graph } = ModelProto.decode(lower(program, settings).model) as unknown as {
            graph: { node: { opType: string }[] }
          }
          types.push(...graph.node.map(({ opType }) => opType))
          return executor.load(program, settings)
        },
      }
      const forward = await createForward(reading, model, parameters, [])
      // In a layer: queries, keys and values; output; gate and up; down. And the head.
      expect(types.filter((type) => type === 'MatMulNBits' || type === 'QGemm')).toHaveLength(
        4 * model.dimensions.layers + 1,
      )
      await forward.dispose()
      await executor.dispose()
    },
  )

  it('describes itself, and is not trained', async () => {
    await quantize({ model: tinyModel, out: at('info'), bits: 8 })
    const checkpoint = await openCheckpoint(at('info'))
    expect(checkpoint.config.quantization_config).toEqual({
      quant_method: 'rtn',
      checkpoint_format: 'matmul_nbits',
      bits: 8,
      group_size: 32,
      sym: true,
    })
    const original = await openCheckpoint(tinyModel)
    const [info, before] = [await inspectCheckpoint(checkpoint), await inspectCheckpoint(original)]
    await Promise.all([checkpoint.close(), original.close()])
    expect(info.parameters).toEqual(before.parameters)
    expect(info.storedTypes[0]).toMatchObject({ dtype: '8-bit', tensors: 29 })
    expect(info.memory.inferenceBytes).toBe(info.storedBytes)
    await quantize({ model: tinyModel, out: at('offsets'), offsets: true })
    const withOffsets = await openCheckpoint(at('offsets'))
    expect(withOffsets.config.quantization_config).toMatchObject({ bits: 4, sym: false, offsets: true })
    await withOffsets.close()
    await quantize({ model: tinyModel, out: at('rows'), bits: 8, activations: 8 })
    const inRows = await openCheckpoint(at('rows'))
    expect(inRows.config.quantization_config).toEqual({
      quant_method: 'rtn',
      checkpoint_format: 'qgemm',
      bits: 8,
      group_size: -1,
      sym: true,
      activation_bits: 8,
    })
    expect((await inspectCheckpoint(inRows)).storedTypes[0]).toMatchObject({ dtype: '8-bit', tensors: 29 })
    await inRows.close()
    await expect(load(at('info'))).rejects.toThrow(
      'is quantised; train low-rank weights on it (lora.rank), or the model that it was made from',
    )
    await expect(quantize({ model: at('info'), out: at('twice') })).rejects.toThrow('is quantised already')
  })
})

describe('blocks of a GGUF file that have the format', () => {
  it.each([
    ['Q4_1', { offsets: true }],
    ['Q4_0', { symmetric: true }],
    ['Q8_0', { bits: 8 }],
  ] as const)('%s are taken over by %o', async (name, options) => {
    const [number, type] = [...quantizedTypes].find(([, type]) => type.name === name)!
    const draw = random(6, number)
    const tensors = smallLlama.tensors.map((tensor) => {
      // Eight times as wide, so that rows are whole blocks.
      const shape = tensor.shape.map((size) => (size === 20 ? size : 8 * size))
      const values = shape.reduce((product, size) => product * size, 1)
      if (shape.length === 1) return float32Tensor(tensor.name, shape, () => 1)
      const data = new Uint8Array((values / type.blockSize) * type.blockBytes)
      for (let i = 0; i < data.length; i++) data[i] = draw.integer(256)
      // Scales and offsets that are numbers, and of about one size.
      for (let i = 0; i < data.length; i += type.blockBytes)
        for (const at of name === 'Q4_1' ? [1, 3] : [1]) data[i + at] = (data[i + at] & 0x83) | 0x28
      return { name: tensor.name, shape, type: number, data }
    })
    const metadata = {
      ...smallLlama.metadata,
      'llama.embedding_length': { u32: 64 },
      'llama.feed_forward_length': { u32: 128 },
      'llama.rope.dimension_count': { u32: 32 },
    }
    const [model, out] = [at(`${name}.gguf`), at(name)]
    writeFileSync(model, ggufFile(metadata, tensors))
    const result = await quantize({ model, out, ...options })
    expect(result.error).toBe(0)
    const [before, after] = [await openCheckpoint(model), await openCheckpoint(out)]
    for (const [tensor, { blocks }] of before.tensors)
      if (blocks) expectSame(await after.readQuantized(tensor), await before.readQuantized(tensor))
      else expectSame(await after.read(tensor), await before.read(tensor))
    expect([...after.tensors.values()].filter(({ blocks }) => blocks)).toHaveLength(result.tensors)
    await Promise.all([before.close(), after.close()])
  })
})

describe('what exists', () => {
  const list = (name: string) => readdirSync(at(name)).sort()

  it('is replaced by force alone, and by what is whole', async () => {
    const out = at('kept')
    await quantize({ model: tinyModel, out })
    writeFileSync(join(out, 'notes.md'), 'mine')
    const before = readFileSync(join(out, 'model.safetensors'))
    await expect(quantize({ model: tinyModel, out, bits: 8 })).rejects.toThrow('exists already')
    const stopped = new AbortController()
    const options = { model: tinyModel, out, bits: 8, force: true } as const
    await expect(
      quantize({ ...options, signal: stopped.signal, onEvent: () => stopped.abort(new Error('stopped')) }),
    ).rejects.toThrow('stopped')
    expect(readFileSync(join(out, 'model.safetensors')).equals(before)).toBe(true)
    await quantize(options)
    expect(readFileSync(join(out, 'model.safetensors')).equals(before)).toBe(false)
    expect(list('kept')).toContain('notes.md')
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('is never the model', async () => {
    const model = at('model-itself')
    mkdirSync(model)
    for (const name of readdirSync(tinyModel))
      if (name !== 'data') writeFileSync(join(model, name), readFileSync(join(tinyModel, name)))
    symlinkSync(model, at('other-name'))
    const before = list('model-itself')
    for (const out of [model, at('other-name'), join(model, 'q4'), folder])
      for (const force of [true, false]) await expect(quantize({ model, out, force })).rejects.toThrow('an input')
    expect(list('model-itself')).toEqual(before)
  })
})

describe('refused:', () => {
  it('formats that do not exist or do not fit', async () => {
    const out = at('none')
    await expect(quantize({ model: tinyModel, out, groupSize: 24 })).rejects.toThrow('groupSize: expected')
    await expect(quantize({ model: tinyModel, out, groupSize: 256 })).rejects.toThrow('not whole groups of 256')
    await expect(quantize({ model: tinyModel, out, offsets: true, symmetric: true })).rejects.toThrow('choose one')
    await expect(quantize({ model: tinyModel, out, bits: 3 as 4 })).rejects.toThrow('bits: expected 4 or 8')
    const rows = { model: tinyModel, out, bits: 8, activations: 8 } as const
    await expect(quantize({ ...rows, bits: 4 })).rejects.toThrow('activations, bits: 8 bits')
    await expect(quantize({ ...rows, groupSize: 32 })).rejects.toThrow('a row has one scale')
    await expect(quantize({ ...rows, symmetric: false })).rejects.toThrow('a row has one scale')
    await expect(openCheckpoint(out)).rejects.toThrow('no such file')
  })

  it('any other quantization_config, and parts that do not fit, with a UserError', async () => {
    const out = at('damaged')
    await quantize({ model: tinyModel, out, symmetric: false })
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'))
    const read = async (settings: unknown) => {
      writeFileSync(join(out, 'config.json'), JSON.stringify({ ...config, quantization_config: settings }))
      await loadForInference(out)
    }
    const known = config.quantization_config
    await expect(read({ ...known, checkpoint_format: 'gptq', quant_method: 'gptq' })).rejects.toThrow(
      'weights quantised by "gptq" in the format "gptq" are not read',
    )
    await expect(read({ ...known, group_size: 24 })).rejects.toThrow('group_size 24 is not a power of two')
    await expect(read({ ...known, group_size: 128 })).rejects.toThrow('of 4 or 8 bits in groups of 128')
    // Twice the values of half the bits: the scales do not fit the model's shapes.
    await expect(read({ ...known, group_size: 16 })).rejects.toThrow(UserError)
    await expect(read(undefined)).rejects.toThrow(UserError)
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...Object.keys(known)), fc.jsonValue(), async (key, value) => {
        const same = await read({ ...known, [key]: value }).catch((error: unknown) => error)
        if (same !== undefined) expect(same).toBeInstanceOf(UserError)
      }),
      { numRuns: 100 },
    )
  })
})

describe('offsets of a folder', () => {
  const [rows, blocks] = [4, 2]
  const bytes = (shape: number[]): WritableTensor => ({
    shape,
    readBytes: async () => new Uint8Array(shape.reduce((product, size) => product * size, 1)).fill(7),
  })
  const floats = (shape: number[]): WritableTensor => ({
    shape,
    data: new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(0.5),
  })
  async function folderWith(extra: [string, WritableTensor][], dtype: 'F32' | 'F16' = 'F32') {
    const out = at('parts')
    mkdirSync(out, { recursive: true })
    const quantization_config = { checkpoint_format: 'matmul_nbits', group_size: 16 }
    writeFileSync(join(out, 'config.json'), JSON.stringify({ model_type: 'llama', quantization_config }))
    const tensors: [string, WritableTensor][] = [
      ['a.weight', bytes([rows, blocks, 8])],
      ['a.scales', floats([rows, blocks])],
    ]
    await writeSafetensors(join(out, 'model.safetensors'), new Map([...tensors, ...extra]), { dtype })
    return openCheckpoint(out)
  }

  it('have a place for every block, and no zero points beside them', async () => {
    await expect(folderWith([['a.minima', floats([rows, 1])]])).rejects.toThrow(
      'its a.minima is F32 [4, 1], expected F32 or F16 or BF16 [4, 2]',
    )
    await expect(folderWith([['a.minima', bytes([rows, blocks])]])).rejects.toThrow('its a.minima is U8')
    await expect(
      folderWith([
        ['a.minima', floats([rows, blocks])],
        ['a.zero_points', bytes([rows, 1])],
      ]),
    ).rejects.toThrow('has both a.zero_points and a.minima')
  })

  it('are read where they are in half precision, and mapped where they are not', async () => {
    for (const dtype of ['F32', 'F16'] as const) {
      const checkpoint = await folderWith([['a.minima', floats([rows, blocks])]], dtype)
      expect(checkpoint.tensors.get('a.weight')).toMatchObject({
        dtype: '4-bit',
        shape: [4, 32],
        blocks: { offsets: true },
      })
      expect([...checkpoint.tensors.keys()]).toEqual(['a.weight'])
      expect(await checkpoint.read('a.weight')).toEqual(
        new Float32Array(rows * 32).map((_, i) => (i % 2 === 0 ? 4 : 0.5)),
      )
      expect((await checkpoint.map('a.weight')) !== undefined).toBe(dtype === 'F32')
      await checkpoint.close()
    }
  })
})

describe('weights that are mapped from their file', () => {
  const ids = [5, 9, 2, 2, 40]
  async function logits(model: Model, weights: ReadonlyMap<string, InferenceParameter>): Promise<Float32Array> {
    const executor = createExecutor({ threads: 1 })
    try {
      const forward = await createForward(executor, model, weights, [])
      const request = { ids, blockSize: 1, rows: [0, 1, 2, 3, 4], store: 0, logits: true }
      return (await forward.run(forward.createCache(), request)).logits!
    } finally {
      await executor.dispose()
    }
  }

  it.each([
    { bits: 4, symmetric: false },
    { bits: 4, offsets: true },
    { bits: 8, symmetric: true },
    { bits: 8, activations: 8 },
    { bits: 32 },
  ] as const)('of %o give what those that are read give, through a link too', async (options) => {
    const source = options.bits === 32 ? tinyModel : at('mapped')
    if (options.bits !== 32) await quantize({ model: tinyModel, out: source, force: true, ...options })
    const linked = at('linked')
    rmSync(linked, { recursive: true, force: true })
    mkdirSync(linked)
    // Weights may lie elsewhere; what says how they are read may not.
    for (const name of readdirSync(source))
      (name.endsWith('.json') ? copyFileSync : symlinkSync)(join(source, name), join(linked, name))
    const checkpoint = await openCheckpoint(source)
    const { model, parameters } = await loadForInference(linked)
    const read = new Map<string, InferenceParameter>()
    for (const [name, shape] of model.parameters) {
      expect(parameters.get(name)).toHaveProperty('file')
      const stored = checkpoint.tensors.get(name)?.blocks
      read.set(name, stored ? await checkpoint.readQuantized(name) : { shape, data: await checkpoint.read(name) })
    }
    await checkpoint.close()
    expectSame(await logits(model, parameters), await logits(model, read))
  })
})

describe('whole numbers', () => {
  it('give the same by instructions that cannot clip, of weights that are mapped or read', async () => {
    const out = at('rows-unclipped')
    await quantize({ model: tinyModel, out, bits: 8, activations: 8 })
    const { model, parameters } = await loadForInference(out)
    const checkpoint = await openCheckpoint(out)
    const read = new Map<string, InferenceParameter>()
    for (const [name, shape] of model.parameters)
      read.set(
        name,
        shape.length === 2 ? await checkpoint.readQuantized(name) : { shape, data: await checkpoint.read(name) },
      )
    await checkpoint.close()
    const executor = createExecutor({ threads: 1 })
    const unclipped: Executor = {
      ...executor,
      load(program, options = {}) {
        const { constants, files } = options
        const { model, loaded } = lower(program, options)
        const weights = constants?.values(loaded)
        return executor.loadModel(model, { weights, externalFolder: files?.folder, unclipped: true })
      },
    }
    const results: Float32Array[] = []
    for (const [runner, weights] of [
      [executor, parameters],
      [unclipped, parameters],
      [unclipped, read],
    ] as const) {
      const forward = await createForward(runner, model, weights, [])
      const request = { ids: [5, 9, 2, 2, 40], blockSize: 1, rows: [0, 1, 2, 3, 4], store: 0, logits: true }
      results.push((await forward.run(forward.createCache(), request)).logits!)
      await forward.dispose()
    }
    await executor.dispose()
    expect(results[1]).toEqual(results[0])
    expect(results[2]).toEqual(results[0])
  })
})

describe('gptq', () => {
  const text = at('text.jsonl')
  writeFileSync(
    text,
    Array.from({ length: 60 }, (_, i) => `${JSON.stringify({ text: `reverse(abc${i})=${i}cba` })}\n`).join(''),
  )

  it.each([
    ['an autoregressive', {}],
    ['a diffusion', { mask_token_id: 1, block_size: 8 }],
  ])('of %s model changes its predictions less than rounding to the nearest', async (_, config) => {
    const model = at('source')
    rmSync(model, { recursive: true, force: true })
    mkdirSync(model)
    for (const name of readdirSync(tinyModel))
      if (name !== 'data' && name !== 'config.json') copyFileSync(join(tinyModel, name), join(model, name))
    const original = JSON.parse(readFileSync(join(tinyModel, 'config.json'), 'utf8'))
    writeFileSync(join(model, 'config.json'), JSON.stringify({ ...original, ...config }))
    const options = { model, force: true, bits: 4, threads: 1, template: 'none' } as const
    const nearest = await quantize({ ...options, out: at('nearest') })
    const compensated = await quantize({ ...options, out: at('gptq'), method: 'gptq', calibration: [text] })
    expect(nearest.measured).toBe('weights')
    expect(compensated.measured).toBe('outputs')
    const { tokenizer } = await load(model)
    const texts = Array.from({ length: 20 }, (_, i) => tokenizer.encode(`reverse(abc${i})=${i}cba`))
    const logits = async (folder: string): Promise<number[]> => {
      const { model, parameters } = await loadForInference(folder)
      const executor = createExecutor({ threads: 1 })
      try {
        const forward = await createForward(executor, model, parameters, [])
        const all: number[] = []
        for (const text of texts) {
          const rows = text.map((_, i) => i)
          // As the calibration text was: whole, or with masks in it.
          const ids = 'mask_token_id' in config ? text.map((id, i) => (i % 3 === 0 ? 1 : id)) : text
          const blockSize = 'block_size' in config ? config.block_size : 1
          const request = { ids, blockSize, rows, store: 0, logits: true }
          all.push(...(await forward.run(forward.createCache(), request)).logits!)
        }
        return all
      } finally {
        await executor.dispose()
      }
    }
    const exact = await logits(model)
    const change = async (folder: string) =>
      (await logits(folder)).reduce((sum, value, i) => sum + (value - exact[i]) ** 2, 0)
    expect(await change(at('gptq'))).toBeLessThan(await change(at('nearest')))
  })

  it.each([false, true])('reports what changes in the outputs of a matrix, sequential %s', async (sequential) => {
    const name = 'model.layers.0.self_attn.v_proj.weight'
    const out = at('reported')
    const errors = new Map<string, number>()
    const shares: number[] = []
    await quantize({
      ...{ model: tinyModel, out, force: true, method: 'gptq', calibration: [text], template: 'none', threads: 1 },
      sequential,
      onEvent(event) {
        if (event.type !== 'tensor') return
        errors.set(event.name, event.error)
        shares.push(event.share)
      },
    })
    const { tokenizer, parameters, model } = await load(tinyModel)
    const quantised = await openCheckpoint(out)
    const rounded = await quantised.read(name)
    const embedding = sequential
      ? await quantised.read('model.embed_tokens.weight')
      : parameters.get('model.embed_tokens.weight')!.data
    await quantised.close()
    const { hiddenSize: width } = model.dimensions
    const [matrix, norm] = [name, 'model.layers.0.input_layernorm.weight'].map((key) => parameters.get(key)!.data)
    let [change, size] = [0, 0]
    for (let i = 0; i < 60; i++)
      for (const id of [...tokenizer.encode(`reverse(abc${i})=${i}cba`), tokenizer.eosTokenId!]) {
        const e = embedding.subarray(id * width, (id + 1) * width)
        const scale = 1 / Math.sqrt(e.reduce((sum, value) => sum + value ** 2, 0) / width + 1e-5)
        for (let row = 0; row < matrix.length / width; row++) {
          let [before, after] = [0, 0]
          for (let j = 0; j < width; j++) {
            const x = e[j] * scale * norm[j]
            before += x * matrix[row * width + j]
            after += x * rounded[row * width + j]
          }
          change += (before - after) ** 2
          size += before ** 2
        }
      }
    expect(errors.get(name)! / Math.sqrt(change / size)).toBeCloseTo(1, 3)
    expect(shares.at(-1)).toBeCloseTo(1, 6)
    expect([...shares].sort((a, b) => a - b)).toEqual(shares)
  })

  it('needs text, and only it takes some', async () => {
    await expect(quantize({ model: tinyModel, out: at('no'), method: 'gptq' })).rejects.toThrow(
      'method, calibration: gptq needs text',
    )
    await expect(quantize({ model: tinyModel, out: at('no'), calibration: [text] })).rejects.toThrow('no other method')
    await expect(quantize({ model: tinyModel, out: at('no'), sequential: false })).rejects.toThrow('sequential: false')
  })
})
