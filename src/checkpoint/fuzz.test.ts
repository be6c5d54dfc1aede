import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ggufFile, smallLlama } from '../../test/checkpoint/gguf-file.ts'
import { UserError } from '../core/types.ts'
import { openCheckpoint, openSafetensors } from './index.ts'
import { openZip } from './zip.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-fuzz-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** Damage: bytes overwritten, a run of 0xff (sizes become huge), bytes removed or added, the end cut off. */
type Damage =
  | { kind: 'set'; at: number; byte: number }
  | { kind: 'fill'; at: number }
  | { kind: 'remove'; at: number; length: number }
  | { kind: 'insert'; at: number; bytes: Uint8Array }
  | { kind: 'cut'; at: number }

/** Positions are fractions of the length, most of them in the first part, where headers are. */
const position = fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 0.1, noNaN: true }))
const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), at: position, byte: fc.integer({ min: 0, max: 255 }) }),
  fc.record({ kind: fc.constant('fill' as const), at: position }),
  fc.record({ kind: fc.constant('remove' as const), at: position, length: fc.integer({ min: 1, max: 64 }) }),
  fc.record({
    kind: fc.constant('insert' as const),
    at: position,
    bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: position }),
)

const apply = (bytes: Buffer, change: Damage): Buffer => {
  const at = Math.floor(change.at * bytes.length)
  const before = bytes.subarray(0, at)
  if (change.kind === 'cut') return before
  if (change.kind === 'remove') return Buffer.concat([before, bytes.subarray(at + change.length)])
  if (change.kind === 'insert') return Buffer.concat([before, change.bytes, bytes.subarray(at)])
  const copy = Buffer.from(bytes)
  if (change.kind === 'set') copy.fill(change.byte, at, Math.min(at + 1, copy.length))
  else copy.fill(0xff, at, Math.min(at + 8, copy.length))
  return copy
}

/** Runs `read` on damaged copies of a file: it gives a result or a UserError that names the file, and nothing else. */
const survives = async (name: string, whole: Uint8Array, numRuns: number, read: (path: string) => Promise<void>) => {
  const path = join(folder, name)
  const run = async (bytes: Uint8Array): Promise<void> => {
    await writeFile(path, bytes)
    const before = process.memoryUsage().arrayBuffers
    try {
      await read(path)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      expect(error.message).toContain(name)
    }
    // What was allocated and not yet collected since the last file: far less than any header can ask for.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * bytes.length + 2 ** 22)
  }
  await run(whole)
  await fc.assert(
    fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 4 }), (changes) =>
      run(changes.reduce(apply, Buffer.from(whole))),
    ),
    { numRuns },
  )
}

const safetensors = (tensors: Record<string, unknown>, dataBytes: number): Buffer => {
  const header = Buffer.from(JSON.stringify({ __metadata__: { format: 'pt' }, ...tensors }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  return Buffer.concat([length, header, Buffer.alloc(dataBytes, 7)])
}

describe('damaged files give a UserError', () => {
  it('safetensors', async () => {
    const header = {
      'model.embed_tokens.weight': { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      'model.norm.weight': { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
      ids: { dtype: 'I64', shape: [1], data_offsets: [32, 40] },
    }
    await survives('damaged.safetensors', safetensors(header, 40), 800, async (path) => {
      const file = await openSafetensors(path)
      try {
        for (const name of file.tensors.keys()) {
          await file.readRaw(name).catch(userErrorOnly)
          await file.read(name).catch(userErrorOnly)
        }
      } finally {
        await file.close()
      }
    })
  })

  it('safetensors of a quantised model', async () => {
    await mkdir(join(folder, 'quantized'))
    const config = { model_type: 'llama', quantization_config: { checkpoint_format: 'matmul_nbits', group_size: 16 } }
    await writeFile(join(folder, 'quantized', 'config.json'), JSON.stringify(config))
    const part = (dtype: string, shape: number[], begin: number, end: number) => ({
      dtype,
      shape,
      data_offsets: [begin, end],
    })
    const header = {
      'model.embed_tokens.weight': part('U8', [2, 3, 8], 0, 48),
      'model.embed_tokens.scales': part('F32', [2, 3], 48, 72),
      'model.embed_tokens.zero_points': part('U8', [2, 2], 72, 76),
      'lm_head.weight': part('U8', [2, 1, 16], 76, 108),
      'lm_head.scales': part('F16', [2, 1], 108, 112),
      'model.layers.0.mlp.up_proj.weight': part('U8', [1, 2, 8], 112, 128),
      'model.layers.0.mlp.up_proj.scales': part('F32', [1, 2], 128, 136),
      'model.layers.0.mlp.up_proj.minima': part('F32', [1, 2], 136, 144),
    }
    await survives('quantized/model.safetensors', safetensors(header, 144), 800, async (path) => {
      const checkpoint = await openCheckpoint(path)
      try {
        for (const { name, blocks } of checkpoint.tensors.values()) {
          await checkpoint.read(name).catch(userErrorOnly)
          if (blocks) await checkpoint.readQuantized(name)
          await checkpoint.map(name)
        }
      } finally {
        await checkpoint.close()
      }
    })
  })

  it('GGUF, with its weights, config and tokenizer', async () => {
    const whole = ggufFile(smallLlama.metadata, smallLlama.tensors)
    await survives('damaged.gguf', whole, 800, async (path) => {
      const checkpoint = await openCheckpoint(path)
      try {
        for (const name of checkpoint.tensors.keys()) await checkpoint.read(name).catch(userErrorOnly)
        await checkpoint.tokenizerFiles()
      } finally {
        await checkpoint.close()
      }
    })
  })

  it('GGUF cut anywhere', async () => {
    const whole = Buffer.from(ggufFile(smallLlama.metadata, smallLlama.tensors))
    const path = join(folder, 'cut.gguf')
    for (let length = 0; length < whole.length; length += 7) {
      await writeFile(path, whole.subarray(0, length))
      await expect(openCheckpoint(path)).rejects.toThrow(UserError)
    }
  })

  it('ZIP', async () => {
    // One stored entry, `a`, of five bytes, as a ZIP program writes it.
    const whole = Buffer.from(
      '504b03040a00000000000000210086a6103605000000050000000100000061' +
        '68656c6c6f' +
        '504b01021e030a00000000000000210086a61036050000000500000001000000000000000000000000000000000061' +
        '504b050600000000010001002f000000240000000000',
      'hex',
    )
    await survives('damaged.zip', whole, 600, async (path) => {
      const archive = await openZip(path)
      for (const entry of archive.entries)
        for await (const piece of archive.read(entry)) expect(piece.length).toBeGreaterThan(0)
    })
  })
})

const userErrorOnly = (error: unknown): void => {
  if (!(error instanceof UserError)) throw error
}
