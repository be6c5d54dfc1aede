// Blocks of GGUF files that are taken over, against the same blocks in float32.
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { ggufFile, smallLlama, type TensorEntry } from '../../test/checkpoint/gguf-file.ts'
import { random } from '../core/random.ts'
import { dequantize, emptyQuantized } from '../quant/layout.ts'
import { blockFormatOf, takeBlocks } from './gguf-blocks.ts'
import { quantizedTypes } from './gguf-dequantize.ts'
import { openCheckpoint } from './index.ts'

const golden: Record<string, { blocks: string; values: string }> = JSON.parse(
  readFileSync(new URL('../../test/checkpoint/ggml-blocks.json', import.meta.url), 'utf8'),
)
const taken = [...quantizedTypes].filter(([, type]) => blockFormatOf(type)).map(([number, type]) => ({ number, type }))

const folder = await mkdtemp(join(tmpdir(), 'unmask-blocks-'))
afterAll(() => rm(folder, { recursive: true }))

it('some types are taken over', () => {
  expect(taken.map(({ type }) => type.name)).toEqual(['Q4_0', 'Q4_1', 'Q8_0', 'Q4_K'])
})

it.each(taken)('$type.name stands for bitwise what ggml gives', ({ type }) => {
  const { blocks, values } = golden[type.name]!
  const bytes = Buffer.from(blocks, 'hex')
  const count = bytes.length / type.blockBytes
  const output = emptyQuantized([count, type.blockSize], blockFormatOf(type)!)
  for (let block = 0; block < count; block++)
    takeBlocks(type, bytes.subarray(block * type.blockBytes, (block + 1) * type.blockBytes), output, block)
  expect(Buffer.from(dequantize(output).buffer).toString('hex')).toBe(values)
})

it.each(taken)(
  '$type.name matrices of a file are what float32 reading gives, rows in the same order',
  async ({ number, type }) => {
    const draw = random(5, number)
    const blocks = (name: string, rows: number): TensorEntry => {
      const data = new Uint8Array(rows * 2 * type.blockBytes)
      for (let i = 0; i < data.length; i++) data[i] = draw.uniform() * 256
      // A scale that is a number: a float16 of exponent 7.
      for (let i = 1; i < data.length; i += type.blockBytes) data[i] = (data[i]! & 0x83) | 0x1c
      return { name, shape: [rows, 2 * type.blockSize], type: number, data }
    }
    const others = smallLlama.tensors.filter(({ name }) => !/token_embd|attn_[qk]/.test(name))
    const tensors = [
      blocks('token_embd.weight', 20),
      blocks('blk.0.attn_q.weight', 8),
      blocks('blk.0.attn_k.weight', 4),
    ]
    const path = join(folder, `${type.name}.gguf`)
    await writeFile(path, ggufFile(smallLlama.metadata, [...tensors, ...others]))
    const checkpoint = await openCheckpoint(path)
    try {
      for (const name of ['embed_tokens', 'layers.0.self_attn.q_proj', 'layers.0.self_attn.k_proj']) {
        const full = `model.${name}.weight`
        expect(checkpoint.tensors.get(full)?.blocks).toEqual(blockFormatOf(type))
        expect(dequantize(await checkpoint.readQuantized(full))).toEqual(await checkpoint.read(full))
      }
      await expect(checkpoint.readQuantized('model.norm.weight')).rejects.toThrow('F32 is not read in blocks')
    } finally {
      await checkpoint.close()
    }
  },
)
