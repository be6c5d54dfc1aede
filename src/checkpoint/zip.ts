// Reads ZIP archives (Python wheels) entry by entry with Node's zlib. ZIP64, encryption and archives of several parts
// are refused. Knows nothing about what is inside.
import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { createInflateRaw } from 'node:zlib'
import { UserError } from '../core/types.ts'
import { openFile, type RandomAccessFile } from './file.ts'

export interface ZipEntry {
  name: string
  compressedSize: number
  /** Uncompressed, as the archive declares it; reading checks it. */
  size: number
  method: number
  headerOffset: number
}

export interface ZipArchive {
  path: string
  size: number
  entries: readonly ZipEntry[]
  /** The uncompressed bytes in pieces. Throws UserError as soon as there are more than declared, or when too few. */
  read(entry: ZipEntry): AsyncGenerator<Uint8Array>
}

const END_RECORD = 0x06054b50
const CENTRAL_HEADER = 0x02014b50
const LOCAL_HEADER = 0x04034b50
const END_RECORD_BYTES = 22
const CENTRAL_HEADER_BYTES = 46
const LOCAL_HEADER_BYTES = 30
/** A comment behind the end record has at most this many bytes. */
const MAX_COMMENT_BYTES = 65535
const STORED = 0
const DEFLATED = 8

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const readDirectory = async (file: RandomAccessFile): Promise<ZipEntry[]> => {
  const { path, size } = file
  const fail = (problem: string): never => {
    throw new UserError(`${path}: ${problem}`)
  }
  const tail = new Uint8Array(Math.min(size, END_RECORD_BYTES + MAX_COMMENT_BYTES))
  await file.read(size - tail.length, tail)
  const tailView = viewOf(tail)
  let end = tail.length - END_RECORD_BYTES
  while (end >= 0 && tailView.getUint32(end, true) !== END_RECORD) end--
  if (end < 0) return fail('not a ZIP archive, or a truncated one: it has no end record')
  const count = tailView.getUint16(end + 10, true)
  const directoryBytes = tailView.getUint32(end + 12, true)
  const directoryOffset = tailView.getUint32(end + 16, true)
  if (count === 0xffff || directoryBytes === 0xffffffff || directoryOffset === 0xffffffff)
    return fail('ZIP64 archives are not supported')
  if (directoryOffset + directoryBytes > size) return fail('its directory is outside the file')

  const directory = new Uint8Array(directoryBytes)
  await file.read(directoryOffset, directory)
  const view = viewOf(directory)
  const text = new TextDecoder()
  const entries: ZipEntry[] = []
  for (let at = 0; entries.length < count; ) {
    if (at + CENTRAL_HEADER_BYTES > directory.length || view.getUint32(at, true) !== CENTRAL_HEADER)
      return fail(`entry ${entries.length} of its directory is damaged`)
    const nameBytes = view.getUint16(at + 28, true)
    const next = at + CENTRAL_HEADER_BYTES + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true)
    if (next > directory.length) return fail(`entry ${entries.length} of its directory is damaged`)
    entries.push({
      name: text.decode(directory.subarray(at + CENTRAL_HEADER_BYTES, at + CENTRAL_HEADER_BYTES + nameBytes)),
      method: view.getUint16(at + 10, true),
      compressedSize: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      headerOffset: view.getUint32(at + 42, true),
    })
    at = next
  }
  return entries
}

/** The compressed bytes of an entry; the local header says where they begin. */
const compressedBytes = async (path: string, entry: ZipEntry): Promise<Readable> => {
  const { headerOffset, compressedSize, name } = entry
  const file = await openFile(path)
  try {
    const header = new Uint8Array(LOCAL_HEADER_BYTES)
    await file.read(headerOffset, header)
    const view = viewOf(header)
    const start = headerOffset + LOCAL_HEADER_BYTES + view.getUint16(26, true) + view.getUint16(28, true)
    if (view.getUint32(0, true) !== LOCAL_HEADER || start + compressedSize > file.size)
      throw new UserError(`${path}: entry ${name} is damaged`)
    return compressedSize === 0
      ? Readable.from([])
      : createReadStream(path, { start, end: start + compressedSize - 1, highWaterMark: 1 << 20 })
  } finally {
    await file.close()
  }
}

async function* readEntry(path: string, entry: ZipEntry): AsyncGenerator<Uint8Array> {
  if (entry.method !== STORED && entry.method !== DEFLATED)
    throw new UserError(`${path}: entry ${entry.name}: compression method ${entry.method} is not supported`)
  const source = await compressedBytes(path, entry)
  const inflated = entry.method === STORED ? source : source.pipe(createInflateRaw({ chunkSize: 1 << 20 }))
  // pipe() does not pass errors on.
  source.on('error', (error) => inflated.destroy(error))
  let size = 0
  try {
    for await (const piece of inflated as AsyncIterable<Uint8Array>) {
      size += piece.length
      if (size > entry.size) break
      yield piece
    }
  } catch (error) {
    throw new UserError(`${path}: entry ${entry.name} is damaged: ${(error as Error).message}`)
  } finally {
    source.destroy()
  }
  if (size !== entry.size)
    throw new UserError(
      `${path}: entry ${entry.name} is damaged: it declares ${entry.size} bytes and has ${size > entry.size ? 'more' : size}`,
    )
}

/** Opens an archive and reads its directory. Throws UserError when it is damaged. */
export const openZip = async (path: string): Promise<ZipArchive> => {
  const file = await openFile(path)
  try {
    const entries = await readDirectory(file)
    return { path, size: file.size, entries, read: (entry) => readEntry(path, entry) }
  } finally {
    await file.close()
  }
}
