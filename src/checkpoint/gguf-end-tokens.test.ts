import { expect, test } from 'vitest'
import type { GgufValue } from './gguf.ts'
import { ggufEndTokens } from './gguf-end-tokens.ts'

const ends = (tokens: string[], keys: Record<string, string> = {}) =>
  ggufEndTokens(
    new Map<string, GgufValue>([
      ['tokenizer.ggml.tokens', tokens],
      ...Object.entries(keys).map(([key, token]) => [`tokenizer.ggml.${key}_token_id`, tokens.indexOf(token)] as const),
    ]),
  ).map((id) => tokens[id])

test('keys name end tokens, that of EOS first', () => {
  expect(ends(['a', 'turn', 'message', 'end'], { eos: 'end', eot: 'turn', eom: 'message' })).toEqual([
    ...['end', 'turn', 'message'],
  ])
})

test('names say what ends a turn where no key does', () => {
  const chat = ['a', '<|endoftext|>', '<|im_start|>', '<|im_end|>']
  expect(ends(chat, { eos: '<|endoftext|>' })).toEqual(['<|endoftext|>', '<|im_end|>'])
  expect(ends(chat, { eos: '<|im_end|>' })).toEqual(['<|im_end|>', '<|endoftext|>'])
  expect(ends(['<|end_of_text|>', '<|eot_id|>', '<|eom_id|>'])).toHaveLength(3)
  expect(ends(['<eos>', '<end_of_turn>', '<start_of_turn>'])).toEqual(['<eos>', '<end_of_turn>'])
})

test('a part of a message is no end where calls and returns are', () => {
  expect(ends(['<|end|>', '<|user|>'])).toEqual(['<|end|>'])
  expect(ends(['<|end|>', '<|return|>', '<|call|>'])).toEqual(['<|return|>', '<|call|>'])
})

test('nothing but text ends nothing; ids beyond the vocabulary are none', () => {
  expect(ends(['a', 'b'])).toEqual([])
  expect(ggufEndTokens(new Map<string, GgufValue>([['tokenizer.ggml.eot_token_id', 7]]))).toEqual([])
})
