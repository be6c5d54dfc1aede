// Builds ZIP archives and Python wheels for tests.
import { createHash } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'

export interface ZipInput {
  name: string
  bytes: Buffer
  /** Declared uncompressed size, where it is to be wrong. */
  declaredSize?: number
}

/** A ZIP archive of deflated entries. Checksums are left 0: RECORD has better ones. */
export const zip = (inputs: readonly ZipInput[]): Buffer => {
  const local: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const { name, bytes, declaredSize = bytes.length } of inputs) {
    const compressed = deflateRawSync(bytes)
    const encoded = Buffer.from(name)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(0x800, 2)
    common.writeUInt16LE(8, 4)
    common.writeUInt16LE(0x21, 8)
    common.writeUInt32LE(crc32(bytes), 10)
    common.writeUInt32LE(compressed.length, 14)
    common.writeUInt32LE(declaredSize, 18)
    common.writeUInt16LE(encoded.length, 22)
    const header = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, encoded])
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(offset, 10)
    central.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, tail, encoded)
    local.push(header, compressed)
    offset += header.length + compressed.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(inputs.length, 8)
  end.writeUInt16LE(inputs.length, 10)
  end.writeUInt32LE(directory.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...local, directory, end])
}

const crc32 = (bytes: Buffer): number => {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return ~crc >>> 0
}

/** The entries of a wheel called `tiny-model` 1.2, with METADATA, WHEEL and RECORD, which pip accepts. */
export const wheelEntries = (files: Record<string, string | Buffer>): ZipInput[] => {
  const info = 'tiny_model-1.2.dist-info'
  const entries = Object.entries({
    ...files,
    [`${info}/METADATA`]: 'Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\n',
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
  }).map(([name, bytes]) => ({ name, bytes: Buffer.from(bytes) }))
  const lines = entries.map(
    ({ name, bytes }) => `${name},sha256=${createHash('sha256').update(bytes).digest('base64url')},${bytes.length}`,
  )
  return [...entries, { name: `${info}/RECORD`, bytes: Buffer.from(`${lines.join('\n')}\n${info}/RECORD,,\n`) }]
}
