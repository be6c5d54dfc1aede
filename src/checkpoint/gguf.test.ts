import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { float32Tensor, ggufFile, strings, type TensorEntry, type Value } from '../../test/checkpoint/gguf-file.ts'
import { UserError } from '../core/types.ts'
import { openGguf } from './gguf.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-gguf-'))
})
afterAll(() => rm(folder, { recursive: true }))

const open = async (bytes: Uint8Array) => {
  const path = join(folder, 'a.gguf')
  await writeFile(path, bytes)
  return openGguf(path)
}

const ramp = (name: string, shape: number[]): TensorEntry => float32Tensor(name, shape, (i) => i)

describe('reading', () => {
  it.each([2, 3])('reads metadata of every type, version %i', async (version) => {
    const metadata: Record<string, Value> = {
      u8: { u8: 200 },
      i8: { i8: -3 },
      u16: { u16: 60000 },
      i16: { i16: -4 },
      u32: { u32: 4e9 },
      i32: { i32: -5 },
      f32: { f32: 0.5 },
      yes: { bool: true },
      no: { bool: false },
      string: { string: 'naïve 🙂' },
      u64: { u64: 1n << 40n },
      huge: { u64: 2n ** 64n - 1n },
      i64: { i64: -7n },
      f64: { f64: 0.1 },
      strings: strings(['a', '']),
      numbers: { list: [{ i32: 1 }, { i32: -2 }] },
      lists: { list: [{ list: [{ u8: 1 }] }, { list: [{ string: 'x' }] }] },
      none: { list: [] },
    }
    const file = await open(ggufFile(metadata, [], { version }))
    expect(Object.fromEntries(file.metadata)).toEqual({
      u8: 200,
      i8: -3,
      u16: 60000,
      i16: -4,
      u32: 4e9,
      i32: -5,
      f32: 0.5,
      yes: true,
      no: false,
      string: 'naïve 🙂',
      u64: 2 ** 40,
      huge: 2n ** 64n - 1n,
      i64: -7,
      f64: 0.1,
      strings: ['a', ''],
      numbers: Int32Array.of(1, -2),
      lists: [Uint8Array.of(1), ['x']],
      none: [],
    })
    await file.close()
  })

  it('reads tensors, with the order of dimensions reversed, at another alignment', async () => {
    const metadata = { 'general.alignment': { u32: 64 } }
    const file = await open(ggufFile(metadata, [ramp('a', [3]), ramp('b', [2, 5])], { alignment: 64 }))
    expect(file.tensors.get('b')).toMatchObject({ shape: [2, 5], byteLength: 40 })
    expect(file.tensors.get('b')!.byteOffset % 64).toBe(0)
    expect(await file.read('a')).toEqual(Float32Array.of(0, 1, 2))
    expect((await file.read('b'))[9]).toBe(9)
    await expect(file.read('c')).rejects.toThrow(/no tensor "c"/)
    await file.close()
  })

  it('reads a header that is larger than the first window', async () => {
    const tokens = Array.from({ length: 300_000 }, (_, i) => `token number ${i}`)
    const file = await open(ggufFile({ tokens: strings(tokens) }, [ramp('a', [3])]))
    expect((file.metadata.get('tokens') as string[]).join() === tokens.join()).toBe(true)
    expect(await file.read('a')).toEqual(Float32Array.of(0, 1, 2))
    await file.close()
  })

  it('reads a tensor of many chunks of blocks', async () => {
    const blocks = 300_000
    const data = new Uint8Array(blocks * 34)
    for (let i = 0; i < blocks; i++) data.set([0x00, 0x3c, i % 100], i * 34)
    const file = await open(ggufFile({}, [{ name: 'q', shape: [blocks, 32], type: 8, data }]))
    const values = await file.read('q')
    expect(values.every((value, i) => value === (i % 32 === 0 ? (i / 32) % 100 : 0))).toBe(true)
    await file.close()
  })
})

describe('refusing', () => {
  const whole = ggufFile({ key: { string: 'value' } }, [ramp('a', [8])])
  const q4 = (shape: number[]): TensorEntry => ({ name: 'q', shape, type: 2, data: new Uint8Array(18) })
  const cases: [string, Uint8Array, RegExp][] = [
    ['another format', Buffer.from('GGML and more bytes'), /not a GGUF file/],
    ['an empty file', new Uint8Array(0), /truncated/],
    ['version 1', ggufFile({}, [], { version: 1 }), /version 1/],
    ['a big-endian file', ggufFile({}, [], { version: 0x03000000 }), /big-endian/],
    ['a truncated header', whole.subarray(0, 40), /truncated/],
    ['truncated data', whole.subarray(0, whole.length - 1), /tensor "a": bytes .* outside the file/],
    [
      'an absurd count',
      Buffer.concat([whole.subarray(0, 8), new Uint8Array(16).fill(0xff)]),
      /number of tensors: \d+ is absurd/,
    ],
    [
      'more entries than fit',
      Buffer.concat([whole.subarray(0, 8), Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0), new Uint8Array(8)]),
      /tensors: 4294967296 entries do not fit/,
    ],
    [
      'a list longer than the file',
      ggufFile({ key: { list: [], count: 10n ** 12n } }, []),
      /"key": 1000000000000 entries/,
    ],
    [
      'a list of numbers longer than the file',
      ggufFile({ key: { list: [], type: 6, count: 10n ** 6n } }, []),
      /"key": 1000000 entries/,
    ],
    ['an unknown type', ggufFile({ key: { list: [{ u8: 1 }], type: 99 } }, []), /"key": unknown value type 99/],
    [
      'lists in lists in lists',
      ggufFile({ key: { list: [{ list: [{ list: [{ list: [{ list: [] }] }] }] }] } }, []),
      /"key": lists nest/,
    ],
    ['a bool of two', ggufFile({ key: { bool: 2 } }, []), /"key": a bool/],
    [
      'a key that occurs twice',
      ggufFile(
        [
          ['k', { u8: 1 }],
          ['k', { u8: 2 }],
        ],
        [],
      ),
      /"k" occurs twice/,
    ],
    ['a tensor that occurs twice', ggufFile({}, [ramp('a', [1]), ramp('a', [1])]), /tensor "a" occurs twice/],
    ['an alignment of zero', ggufFile({ 'general.alignment': { u32: 0 } }, []), /alignment/],
    ['an alignment of text', ggufFile({ 'general.alignment': { string: 'x' } }, []), /alignment/],
    ['no dimensions', ggufFile({}, [{ ...ramp('a', []), shape: [] }]), /tensor "a": 0 dimensions/],
    ['five dimensions', ggufFile({}, [ramp('a', [1, 1, 1, 1, 1])]), /tensor "a": 5 dimensions/],
    ['an empty tensor', ggufFile({}, [ramp('a', [0])]), /tensor "a": shape \[0\]/],
    [
      'a shape whose product overflows',
      ggufFile({}, [{ ...ramp('a', [1]), shape: [2 ** 40, 2 ** 40] }]),
      /tensor "a": shape/,
    ],
    [
      'an unknown tensor type',
      ggufFile({}, [{ ...ramp('a', [1]), type: 99 }]),
      /tensor "a" has ggml's type number 99, which is not known here; use a file .* Q8_0/,
    ],
    [
      'a tensor type that is not read',
      ggufFile({}, [{ ...ramp('a', [1]), type: 40 }]),
      /tensor "a" has the type NVFP4; use a file .* Q8_0/,
    ],
    ['half a block', ggufFile({}, [q4([2, 16])]), /tensor "q": rows of 16 are not whole Q4_0 blocks/],
    [
      'an offset out of line',
      ggufFile({}, [{ ...ramp('a', [1]), offset: 1n }]),
      /tensor "a": offset 1 is not a multiple/,
    ],
    ['overlap', ggufFile({}, [ramp('a', [16]), { ...ramp('b', [1]), offset: 32n }]), /tensor "b" overlaps tensor "a"/],
    ['an offset beyond the file', ggufFile({}, [{ ...ramp('a', [1]), offset: 1n << 40n }]), /tensor "a": bytes/],
  ]
  it.each(cases)('%s', async (_, bytes, message) => {
    const error = await open(bytes).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).toContain('a.gguf')
  })
})
