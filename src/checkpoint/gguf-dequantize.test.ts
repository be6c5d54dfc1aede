import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { quantizedTypes } from './gguf-dequantize.ts'

// Random blocks and their float32 values by llama.cpp's Python package gguf 0.19, little-endian, as hex.
const golden: Record<string, { blocks: string; values: string }> = JSON.parse(
  readFileSync(new URL('../../test/checkpoint/ggml-blocks.json', import.meta.url), 'utf8'),
)

const types = [...quantizedTypes.values()]

it.each(types.filter(({ name }) => name !== 'F32'))('$name is bitwise what ggml gives, at any alignment', (type) => {
  const { blocks, values } = golden[type.name]!
  const bytes = Buffer.from(blocks, 'hex')
  for (const shift of [0, 1]) {
    const input = new Uint8Array(new ArrayBuffer(bytes.length + shift), shift)
    input.set(bytes)
    const output = new Float32Array((input.length / type.blockBytes) * type.blockSize)
    type.dequantize(input, output)
    expect(Buffer.from(output.buffer).toString('hex')).toBe(values)
  }
})

it('F32 is copied', () => {
  const output = new Float32Array(2)
  types.find(({ name }) => name === 'F32')!.dequantize(new Uint8Array(Float32Array.of(0.1, -3).buffer), output)
  expect(output).toEqual(Float32Array.of(0.1, -3))
})
