import { describe, expect, test } from 'vitest'
import { UserError } from '../types.ts'
import { loadTokenizer } from './index.ts'

describe('loadTokenizer', () => {
  test('names the file that is missing or wrong', () => {
    expect(() => loadTokenizer({})).toThrow(UserError)
    expect(() => loadTokenizer({ 'tokenizer.json': '{' })).toThrow(/tokenizer\.json is not valid JSON/)
    expect(() => loadTokenizer({ 'tokenizer.json': '{}' })).toThrow(/no "model"/)
    const vocab = { model: { type: 'BPE', vocab: { a: 4e9 }, merges: [] } }
    expect(() => loadTokenizer({ 'tokenizer.json': JSON.stringify(vocab) })).toThrow(/"a" has the id 4000000000/)
  })
})
