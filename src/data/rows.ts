// Reads the rows of one data file as a stream, each with the line it stands on. Does not know what a row means.
import { type FileHandle, open } from 'node:fs/promises'
import type { DataFile } from './files.ts'
import { readParquet } from './parquet.ts'

/** A row, or what was wrong with it. `line` counts from 1; in Parquet it is the row. */
export type Row = { line: number; value: unknown } | { line: number; error: string }

const CHUNK = 1 << 20
/** A line of JSONL longer than this is a bad row; it is passed over without being held in memory. */
export const MAX_LINE_BYTES = 64 << 20
/** A text in a .txt file longer than this continues in another document. */
export const MAX_TEXT_BYTES = 1 << 20

/**
 * All rows of a file, in order.
 *
 * - `.jsonl`: one JSON value per line. Blank lines and a byte order mark are passed over.
 * - `.txt`: one text per file, or one per part where `<|endoftext|>` separates them; `{ text }` each. A text above 1 MiB
 *   is cut at a blank line, a line or a space, whichever comes first in that order, so that files may be of any size.
 * - `.parquet`: rows as objects holding those of `columns` that the file has, one row group in memory at a time.
 */
export function readRows(file: DataFile, columns: readonly string[]): AsyncGenerator<Row, void> {
  if (file.format === 'jsonl') return readJsonl(file.path)
  if (file.format === 'txt') return readText(file.path)
  return readParquet(file.path, file.size, columns)
}

async function* readChunks(path: string): AsyncGenerator<Buffer, void> {
  let handle: FileHandle | undefined
  try {
    handle = await open(path)
    for (;;) {
      const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK, null)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle?.close()
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes) // drops a byte order mark
  } catch {
    return undefined
  }
}

async function* readJsonl(path: string): AsyncGenerator<Row, void> {
  let line = 1
  let parts: Buffer[] = []
  let held = 0

  function finish(): Row | undefined {
    const tooLong = held > MAX_LINE_BYTES
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    parts = []
    held = 0
    const row = tooLong ? { line, error: `the line is longer than ${MAX_LINE_BYTES} bytes` } : parseLine(line, bytes)
    line++
    return row
  }
  function hold(bytes: Buffer): void {
    held += bytes.length
    if (held > MAX_LINE_BYTES) parts = []
    else parts.push(bytes)
  }

  for await (const chunk of readChunks(path)) {
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      hold(chunk.subarray(start, end))
      start = end + 1
      const row = finish()
      if (row !== undefined) yield row
    }
    if (start < chunk.length) hold(chunk.subarray(start))
  }
  const last = finish()
  if (last !== undefined) yield last
}

function parseLine(line: number, bytes: Buffer): Row | undefined {
  const text = decode(bytes)
  if (text === undefined) return { line, error: 'not valid UTF-8' }
  if (text.trim() === '') return undefined
  try {
    return { line, value: JSON.parse(text) }
  } catch (error) {
    return { line, error: `not valid JSON: ${(error as SyntaxError).message}` }
  }
}

const SEPARATOR = '<|endoftext|>'

async function* readText(path: string): AsyncGenerator<Row, void> {
  let line = 1
  let held = Buffer.alloc(0)
  let searched = 0

  function take(end: number, skip: number): Row | undefined {
    const bytes = held.subarray(0, end)
    const text = decode(bytes)
    const leading = /^\s*\n/.exec(text ?? '')?.[0] ?? ''
    const at = line + leading.split('\n').length - 1
    for (let i = bytes.indexOf(10); i !== -1; i = bytes.indexOf(10, i + 1)) line++
    held = held.subarray(end + skip)
    searched = 0
    if (text === undefined) return { line: at, error: 'not valid UTF-8' }
    return text.trim() === '' ? undefined : { line: at, value: { text: text.replace(/^(?:\r?\n)+|(?:\r?\n)+$/g, '') } }
  }

  for await (const chunk of readChunks(path)) {
    held = Buffer.concat([held, chunk])
    for (;;) {
      const separator = held.indexOf(SEPARATOR, searched)
      let row: Row | undefined
      if (separator !== -1 && separator <= MAX_TEXT_BYTES) row = take(separator, SEPARATOR.length)
      else if (held.length > MAX_TEXT_BYTES) row = take(cutPoint(held), 0)
      else break
      if (row !== undefined) yield row
    }
    searched = Math.max(0, held.length - SEPARATOR.length)
  }
  const last = take(held.length, 0)
  if (last !== undefined) yield last
}

/** Where to cut a text that is too long: after the last blank line, line or space of its second half, or a character. */
function cutPoint(bytes: Buffer): number {
  for (const boundary of ['\n\n', '\n', ' ']) {
    const at = bytes.lastIndexOf(boundary, MAX_TEXT_BYTES - boundary.length)
    if (at >= MAX_TEXT_BYTES / 2) return at + boundary.length
  }
  let at = MAX_TEXT_BYTES
  while (at > MAX_TEXT_BYTES - 4 && (bytes[at]! & 0xc0) === 0x80) at--
  return at
}
