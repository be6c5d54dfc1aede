import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Parameter, UserError } from '../core/types.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors, writeShardedSafetensors } from './safetensors-write.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-safetensors-'))
})
afterAll(() => rm(folder, { recursive: true }))

const at = (name: string): string => join(folder, name)

const bytesOf = (data: Float32Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength)

/** A file from a header, as text or to be made into JSON, and its data. */
const file = (header: unknown, data: Uint8Array = new Uint8Array(0), announced?: bigint): Buffer => {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(announced ?? BigInt(json.length))
  return Buffer.concat([length, json, data])
}

// Written by Python's safetensors 0.8.
const PYTHON_FILE =
  'QAIAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJucCJ9LCJpZHMiOnsiZHR5cGUiOiJJNjQiLCJzaGFwZSI6WzJdLCJkYXRhX29mZnNl' +
  'dHMiOlswLDE2XX0sIm5vdGhpbmciOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzAsNF0sImRhdGFfb2Zmc2V0cyI6WzE2LDE2XX0sInNjYWxhciI6' +
  'eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbMTYsMjBdfSwic2luZ2xlIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsz' +
  'XSwiZGF0YV9vZmZzZXRzIjpbMjAsMzJdfSwic21hbGwiOnsiZHR5cGUiOiJJMzIiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOlszMiwzNl19' +
  'LCJicmFpbiI6eyJkdHlwZSI6IkJGMTYiLCJzaGFwZSI6WzIsMV0sImRhdGFfb2Zmc2V0cyI6WzM2LDQwXX0sImhhbGYiOnsiZHR5cGUiOiJGMTYi' +
  'LCJzaGFwZSI6WzJdLCJkYXRhX29mZnNldHMiOls0MCw0NF19LCJieXRlcyI6eyJkdHlwZSI6IlU4Iiwic2hhcGUiOlszXSwiZGF0YV9vZmZzZXRz' +
  'IjpbNDQsNDddfSwiZmxhZ3MiOnsiZHR5cGUiOiJCT09MIiwic2hhcGUiOlsxLDJdLCJkYXRhX29mZnNldHMiOls0Nyw0OV19fSAgICAgICD/////' +
  '/////wAAAAAAAQAAAAAgQM3MzD0AAACAAABAQPn///+APwBAAD4AwAEC/wAB'

describe('reading', () => {
  it('reads every type of a file that Python wrote', async () => {
    await writeFile(at('python.safetensors'), Buffer.from(PYTHON_FILE, 'base64'))
    const tensors = await openSafetensors(at('python.safetensors'))
    expect(tensors.metadata).toEqual({ format: 'np' })
    expect(await tensors.read('single')).toEqual(Float32Array.of(0.1, -0, 3))
    expect(await tensors.read('half')).toEqual(Float32Array.of(1.5, -2))
    expect(await tensors.read('brain')).toEqual(Float32Array.of(1, 2))
    expect(await tensors.read('scalar')).toEqual(Float32Array.of(2.5))
    expect(await tensors.read('nothing')).toEqual(new Float32Array(0))
    expect(await tensors.readRaw('ids')).toEqual({
      dtype: 'int64',
      shape: [2],
      data: BigInt64Array.of(-1n, 1099511627776n),
    })
    expect((await tensors.readRaw('small')).data).toEqual(Int32Array.of(-7))
    expect((await tensors.readRaw('bytes')).data).toEqual(Uint8Array.of(1, 2, 255))
    expect(await tensors.readRaw('flags')).toEqual({ dtype: 'bool', shape: [1, 2], data: Uint8Array.of(0, 1) })
    expect((await tensors.readRaw('half')).data).toEqual(Uint16Array.of(0x3e00, 0xc000))
    await expect(tensors.read('ids')).rejects.toThrow(/tensor ids: dtype I64/)
    await expect(tensors.readRaw('brain')).rejects.toThrow(/tensor brain: dtype BF16/)
    await expect(tensors.read('other')).rejects.toThrow(/no tensor "other"/)
    await tensors.close()
  })

  const entry = { dtype: 'F32', shape: [1], data_offsets: [0, 4] }
  const four = new Uint8Array(4)
  const cases: [string, Buffer, RegExp][] = [
    ['an empty file', Buffer.alloc(0), /too few/],
    ['a header longer than the file', file({}, four, 1000n), /truncated/],
    ['an absurd header length', file({}, four, 2n ** 63n), /announces a header of 9223372036854775808/],
    ['something else', file('[1,2]'), /does not begin with/],
    ['broken JSON', file('{"a":'), /header is not valid/],
    ['bytes that are not UTF-8', file('{"').fill(0xff, 9), /header is not valid/],
    ['deep nesting', file(`{"a":${'['.repeat(1e6)}`), /nested deeper/],
    [
      'a name that occurs twice',
      file(`{"a":${JSON.stringify(entry)},"\\u0061":${JSON.stringify(entry)}}`, four),
      /duplicate name "a"/,
    ],
    [
      'a key that occurs twice',
      file('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four),
      /duplicate/,
    ],
    ['an unknown type', file({ a: { ...entry, dtype: 'F31' } }, four), /tensor "a": unknown dtype "F31"/],
    ['a type called like a method', file({ a: { ...entry, dtype: 'constructor' } }, four), /unknown dtype/],
    ['a negative size', file({ a: { ...entry, shape: [-1] } }, four), /tensor "a": shape/],
    ['a fractional size', file({ a: { ...entry, shape: [0.5] } }, four), /tensor "a": shape/],
    [
      'a shape whose product overflows',
      file({ a: { ...entry, shape: [2 ** 52, 2 ** 52] } }, four),
      /tensor "a": shape/,
    ],
    [
      'a size that differs from the shape',
      file({ a: { ...entry, shape: [2] } }, four),
      /needs 8 bytes, its data_offsets hold 4/,
    ],
    [
      'a truncated file',
      file({ a: { ...entry, shape: [2], data_offsets: [0, 8] } }, four),
      /"a": bytes 0 to 8 .*truncated/,
    ],
    ['reversed offsets', file({ a: { ...entry, data_offsets: [4, 0] } }, four), /tensor "a"/],
    ['three offsets', file({ a: { ...entry, data_offsets: [0, 4, 4] } }, four), /two byte offsets/],
    ['overlap', file({ a: entry, b: entry }, four), /inside the tensor before/],
    ['a hole', file({ a: { ...entry, data_offsets: [4, 8] } }, new Uint8Array(8)), /behind a hole/],
    ['trailing bytes', file({ a: entry }, new Uint8Array(5)), /1 bytes after the last tensor/],
    ['metadata that are not strings', file({ __metadata__: { a: 1 } }), /__metadata__\.a/],
    ['an entry that is no object', file({ a: null }), /tensor "a"/],
  ]
  it.each(cases)('refuses %s', async (_, bytes, message) => {
    const path = at('bad.safetensors')
    await writeFile(path, bytes)
    const error = await openSafetensors(path).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).toContain(path)
  })

  it('says that a file is missing or a folder', async () => {
    await expect(openSafetensors(at('none.safetensors'))).rejects.toThrow(
      /none\.safetensors: cannot be read: no such file/,
    )
    await expect(openSafetensors(folder)).rejects.toThrow(UserError)
  })
})

const parameters = (sizes: Record<string, number[]>): Map<string, Parameter> =>
  new Map(
    Object.entries(sizes).map(([name, shape]) => [
      name,
      {
        shape,
        data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i + name.length)),
      },
    ]),
  )

describe('writing', () => {
  it('gives float32 back bitwise, whatever names, shapes and values', async () => {
    const tensor = fc
      .array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 })
      .chain((shape) =>
        fc
          .uint32Array({ minLength: shape.reduce((a, b) => a * b, 1), maxLength: shape.reduce((a, b) => a * b, 1) })
          .map((bits) => ({ shape, data: new Float32Array(Uint32Array.from(bits).buffer) })),
      )
    const name = fc.string({ unit: 'binary' }).filter((s) => s !== '__metadata__')
    const path = at('round-trip.safetensors')
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.tuple(name, tensor), { selector: ([n]) => n }), async (entries) => {
        await writeSafetensors(path, new Map(entries), { metadata: { step: '7' } })
        const tensors = await openSafetensors(path)
        expect(tensors.metadata).toEqual({ format: 'pt', step: '7' })
        expect([...tensors.tensors.keys()].sort()).toEqual(entries.map(([n]) => n).sort())
        for (const [n, { shape, data }] of entries) {
          expect(tensors.tensors.get(n)!.shape).toEqual(shape)
          expect(bytesOf(await tensors.read(n)).equals(bytesOf(data))).toBe(true)
        }
        await tensors.close()
      }),
      { numRuns: 60, examples: [[[['__proto__', { shape: [1], data: Float32Array.of(1) }]]]] },
    )
  })

  it('pads the header with spaces so that data begin at a multiple of eight', async () => {
    const path = at('aligned.safetensors')
    await writeSafetensors(path, parameters({ a: [3], bc: [2, 2] }))
    const bytes = await readFile(path)
    const length = Number(bytes.readBigUInt64LE(0))
    expect(length % 8).toBe(0)
    expect(bytes.toString('latin1', 8, 8 + length)).toMatch(/^\{"__metadata__":\{"format":"pt"\},"a":.*\} *$/)
  })

  it.each(['F16', 'BF16'] as const)('stores %s and reads it as float32', async (dtype) => {
    const path = at('half.safetensors')
    await writeSafetensors(path, new Map([['a', { shape: [4], data: Float32Array.of(1, -0.5, 1 + 2 ** -7, 1e-9) }]]), {
      dtype,
    })
    const tensors = await openSafetensors(path)
    expect(tensors.tensors.get('a')).toMatchObject({ dtype, byteLength: 8 })
    const tiny = dtype === 'F16' ? 0 : 137 * 2 ** -37
    expect([...(await tensors.read('a'))]).toEqual([1, -0.5, 1 + 2 ** -7, tiny])
    await tensors.close()
  })

  it('fetches deferred tensors one at a time', async () => {
    const events: string[] = []
    const deferred = (name: string) => ({
      shape: [2],
      read: async () => {
        events.push(name)
        return Float32Array.of(events.length, 0)
      },
    })
    const path = at('deferred.safetensors')
    await writeSafetensors(
      path,
      new Map([
        ['x', deferred('x')],
        ['y', deferred('y')],
      ]),
    )
    expect(events).toEqual(['x', 'y'])
    const tensors = await openSafetensors(path)
    expect(await tensors.read('y')).toEqual(Float32Array.of(2, 0))
    await tensors.close()
  })

  it('leaves the old file and nothing else behind when it fails', async () => {
    const inner = at('atomic')
    await mkdir(inner)
    const path = join(inner, 'a.safetensors')
    await writeSafetensors(path, parameters({ a: [1] }))
    const before = await readFile(path)
    await expect(writeSafetensors(path, new Map([['a', { shape: [3], data: new Float32Array(2) }]]))).rejects.toThrow(
      /tensor "a": 2 values for the shape \[3\]/,
    )
    expect(await readFile(path)).toEqual(before)
    expect(await readdir(inner)).toEqual(['a.safetensors'])
  })

  it('refuses a tensor called like the metadata', async () => {
    await expect(writeSafetensors(at('m.safetensors'), parameters({ __metadata__: [1] }))).rejects.toThrow(UserError)
  })
})

describe('shards', () => {
  const sizes = { 'a.weight': [10], 'b.weight': [2, 5], 'c.weight': [100], 'd.weight': [1] }
  const write = async (name: string): Promise<string> => {
    await mkdir(at(name))
    await writeShardedSafetensors(at(name), parameters(sizes), { maxShardBytes: 80 })
    return join(at(name), 'model.safetensors.index.json')
  }

  it('splits above a size, under the names of Hugging Face, with an index', async () => {
    const index = await write('sharded')
    const shards = (await readdir(at('sharded'))).filter((name) => name !== 'model.safetensors.index.json')
    expect(shards).toEqual([1, 2, 3].map((n) => `model-0000${n}-of-00003.safetensors`))
    expect(JSON.parse(await readFile(index, 'utf8'))).toEqual({
      metadata: { total_size: 484 },
      weight_map: { 'a.weight': shards[0], 'b.weight': shards[0], 'c.weight': shards[1], 'd.weight': shards[2] },
    })
    const tensors = await openSafetensors(index)
    for (const [name, { shape, data }] of parameters(sizes)) {
      expect(tensors.tensors.get(name)!.shape).toEqual(shape)
      expect(await tensors.read(name)).toEqual(data)
    }
    await tensors.close()
  })

  it('writes one file below the size', async () => {
    await mkdir(at('single'))
    await writeShardedSafetensors(at('single'), parameters(sizes))
    expect(await readdir(at('single'))).toEqual(['model.safetensors'])
  })

  const change = (edit: (map: Record<string, unknown>) => void) => async (index: string) => {
    const value = JSON.parse(await readFile(index, 'utf8'))
    edit(value.weight_map)
    await writeFile(index, JSON.stringify(value))
  }
  const cases: [string, (index: string) => Promise<void>, RegExp][] = [
    [
      'a missing shard',
      (index) => rm(join(index, '../model-00002-of-00003.safetensors')),
      /1 of 3 shards are missing: model-00002-of-00003.safetensors; fetch the model again/,
    ],
    [
      'more shards than any model has',
      change((map) => {
        for (let i = 0; i < 5000; i++) map[`t${i}`] = `${i}.safetensors`
      }),
      /names 5003 shards; at most 4096 are accepted/,
    ],
    [
      'a path in the index',
      change((map) => Object.assign(map, { 'a.weight': '../x.safetensors' })),
      /tensor "a.weight".*not the name of a shard/,
    ],
    [
      'a wrong place',
      change((map) => Object.assign(map, { 'a.weight': map['c.weight'] })),
      /tensor "a.weight" is not in model-00002/,
    ],
    ['a tensor that is nowhere', change((map) => Object.assign(map, { z: map['c.weight'] })), /tensor "z" is not in/],
    ['no weight_map', (index) => writeFile(index, '{}'), /weight_map/],
    ['an index that is not JSON', (index) => writeFile(index, '{'), /not valid JSON/],
  ]
  it.each(cases)('refuses %s', async (_, damage, message) => {
    await rm(at('damaged'), { recursive: true, force: true })
    const index = await write('damaged')
    await damage(index)
    const error = await openSafetensors(index).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
  })

  it('reads tensors of its shards that the index does not name', async () => {
    const index = await write('more')
    await change((map) => delete map['a.weight'])(index)
    const tensors = await openSafetensors(index)
    expect(tensors.tensors.has('a.weight')).toBe(true)
    await tensors.close()
  })

  it('refuses a tensor that two shards hold', async () => {
    await mkdir(at('twice'))
    const index = join(at('twice'), 'model.safetensors.index.json')
    await writeSafetensors(join(at('twice'), 'p.safetensors'), parameters({ a: [1], b: [1] }))
    await writeSafetensors(join(at('twice'), 'q.safetensors'), parameters({ a: [1] }))
    await writeFile(index, JSON.stringify({ weight_map: { a: 'q.safetensors', b: 'p.safetensors' } }))
    await expect(openSafetensors(index)).rejects.toThrow(/q.safetensors: tensor "a" is also in p.safetensors/)
  })
})
