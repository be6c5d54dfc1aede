import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { beforeAll, describe, expect, test } from 'vitest'
import type { DataFile } from './files.ts'
import { readParquet } from './parquet.ts'
import { MAX_LINE_BYTES, MAX_TEXT_BYTES, type Row, readRows } from './rows.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-rows-'))
})

async function rows(format: DataFile['format'], content: string | Uint8Array, columns = ['text']): Promise<Row[]> {
  const path = join(folder, `data.${format}`)
  await writeFile(path, content)
  const found: Row[] = []
  for await (const row of readRows({ path, size: 0, format }, columns)) found.push(row)
  return found
}

describe('jsonl', () => {
  test('one value per line, whatever ends it; blank lines and a byte order mark are passed over', async () => {
    expect(await rows('jsonl', '\ufeff{"text":"a"}\r\n\n  \n[1]\n"x"')).toEqual([
      { line: 1, value: { text: 'a' } },
      { line: 4, value: [1] },
      { line: 5, value: 'x' },
    ])
    expect(await rows('jsonl', '')).toEqual([])
    expect(await rows('jsonl', '\n')).toEqual([])
  })

  test('a bad line costs only itself', async () => {
    const bytes = Buffer.concat([
      Buffer.from('{"text":\n'),
      Buffer.from([0x22, 0xff, 0x22, 10]),
      Buffer.from('{"text":"b"}\n'),
    ])
    expect(await rows('jsonl', bytes)).toEqual([
      { line: 1, error: expect.stringMatching(/^not valid JSON: /) },
      { line: 2, error: 'not valid UTF-8' },
      { line: 3, value: { text: 'b' } },
    ])
  })

  test('lines longer than a chunk are whole; a line without end is a bad row', async () => {
    const text = '北'.repeat(1 << 20)
    expect(await rows('jsonl', `${JSON.stringify({ text })}\n1\n`)).toEqual([
      { line: 1, value: { text } },
      { line: 2, value: 1 },
    ])
    const endless = Buffer.alloc(MAX_LINE_BYTES + 10, 'x')
    endless[MAX_LINE_BYTES + 5] = 10
    expect(await rows('jsonl', endless)).toEqual([
      { line: 1, error: `the line is longer than ${MAX_LINE_BYTES} bytes` },
      { line: 2, error: expect.stringMatching(/^not valid JSON/) },
    ])
  })

  test('any bytes give rows or errors with their lines', async () => {
    const line = fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fc.json().map((text) => Buffer.from(text)),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 8 }), async (lines) => {
        const bytes = Buffer.concat(lines.flatMap((part) => [part, Buffer.from('\n')]))
        const count = bytes.filter((byte) => byte === 10).length
        for (const row of await rows('jsonl', bytes)) {
          expect(row.line).toBeGreaterThan(0)
          expect(row.line).toBeLessThanOrEqual(count)
        }
      }),
      { numRuns: 60 },
    )
  })
})

describe('txt', () => {
  test('a file is a text; <|endoftext|> separates several', async () => {
    expect(await rows('txt', 'a\n\nb\n')).toEqual([{ line: 1, value: { text: 'a\n\nb' } }])
    expect(
      await rows('txt', '\ufeffone\r\n<|endoftext|>\r\n  two\nlines\n<|endoftext|>\n\n<|endoftext|>three'),
    ).toEqual([
      { line: 1, value: { text: 'one' } },
      { line: 3, value: { text: '  two\nlines' } },
      { line: 7, value: { text: 'three' } },
    ])
    expect(await rows('txt', ' \n')).toEqual([])
  })

  test('invalid UTF-8 costs only the text that holds it', async () => {
    const bytes = Buffer.concat([Buffer.from('a<|endoftext|>\nb'), Buffer.from([0xe5]), Buffer.from('<|endoftext|>c')])
    expect(await rows('txt', bytes)).toEqual([
      { line: 1, value: { text: 'a' } },
      { line: 1, error: 'not valid UTF-8' },
      { line: 2, value: { text: 'c' } },
    ])
  })

  test.each(['\n\n', '\n', ' ', '北'])('a long text is cut where %j allows, and nothing is lost', async (boundary) => {
    const text = `${'x'.repeat(999)}${boundary}`.repeat((3 * MAX_TEXT_BYTES) / 1000)
    const found = await rows('txt', text)
    const parts = found.map((row) => ('value' in row ? (row.value as { text: string }).text : ''))
    expect(parts.length).toBeGreaterThan(2)
    for (const part of parts) expect(Buffer.byteLength(part)).toBeLessThanOrEqual(MAX_TEXT_BYTES)
    const withoutBreaks = (value: string) => value.replaceAll('\n', '')
    expect(withoutBreaks(parts.join('')) === withoutBreaks(text)).toBe(true)
  })

  test('a separator across two chunks, or behind a long text, is found', async () => {
    const first = 'x'.repeat(MAX_TEXT_BYTES - 5)
    const second = 'y'.repeat(MAX_TEXT_BYTES - 1)
    const found = await rows('txt', `${first}<|endoftext|>${second}<|endoftext|>z`)
    expect(found.map((row) => ('value' in row ? (row.value as { text: string }).text.length : row.error))).toEqual([
      first.length,
      second.length,
      1,
    ])
  })
})

describe('parquet', () => {
  const column = (name: string, data: unknown[]) => ({ name, data, type: 'STRING' as const })
  const table = (codec: 'SNAPPY' | 'UNCOMPRESSED') =>
    new Uint8Array(
      parquetWriteBuffer({
        columnData: [column('text', ['a', 'naïve', 'c']), column('other', ['1', '2', '3'])],
        codec,
        rowGroupSize: 2,
      }),
    )

  test.each(['SNAPPY', 'UNCOMPRESSED'] as const)(
    'rows of all row groups, with the columns asked for (%s)',
    async (codec) => {
      expect(await rows('parquet', table(codec), ['messages', 'text'])).toEqual([
        { line: 1, value: { text: 'a' } },
        { line: 2, value: { text: 'naïve' } },
        { line: 3, value: { text: 'c' } },
      ])
    },
  )

  test('nested messages', async () => {
    const messages = [[{ role: 'user', content: 'Hi' }], [{ role: 'assistant', content: 'Ho' }]]
    const buffer = parquetWriteBuffer({ columnData: [{ name: 'messages', data: messages, type: 'JSON' }] })
    const found = await rows('parquet', new Uint8Array(buffer), ['messages'])
    expect(found.map((row) => ('value' in row ? row.value : row))).toEqual(
      messages.map((value) => ({ messages: value })),
    )
  })

  test('a file without the columns says which it has', async () => {
    expect(await rows('parquet', table('SNAPPY'), ['prompt'])).toEqual([
      { line: 1, error: 'not readable as Parquet: it has none of the columns prompt, but text, other' },
    ])
  })

  test('a corrupt or truncated file is one bad row', async () => {
    const good = table('SNAPPY')
    for (const bytes of [
      new Uint8Array(),
      good.subarray(0, 3),
      good.subarray(0, good.length - 1),
      new Uint8Array(500),
    ]) {
      expect(await rows('parquet', bytes)).toEqual([
        { line: 1, error: expect.stringMatching(/^not readable as Parquet: /) },
      ])
    }
  })

  test('a file that makes the decoder loop is given up', async () => {
    const path = join(folder, 'loop.parquet')
    const bytes = table('SNAPPY')
    bytes[15] = 0 // in the first page header
    await writeFile(path, bytes)
    const found: Row[] = []
    for await (const row of readParquet(path, bytes.length, ['text'], 1500)) found.push(row)
    expect(found).toEqual([{ line: 1, error: expect.stringMatching(/longer than 2 s/) }])
  })

  test('any change to a good file gives rows or an error', async () => {
    const good = table('SNAPPY')
    const path = join(folder, 'changed.parquet')
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.uint8Array({ minLength: 1, maxLength: 6 }), async (at, change) => {
        const bytes = good.slice()
        bytes.set(change.subarray(0, good.length - at), at)
        await writeFile(path, bytes)
        let lines = 0
        for await (const row of readParquet(path, bytes.length, ['text'], 1500)) expect(row.line).toBe(++lines)
      }),
      { numRuns: 8 },
    )
  })
})
