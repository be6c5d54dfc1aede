// The files of the embedded model that are read as they stand: its tokenizer is a byte table, its shape fits its card.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const folder = join(import.meta.dirname, '..', 'models', 'tiny')
const json = async (file: string) => JSON.parse(await readFile(join(folder, file), 'utf8'))

describe('models/tiny', () => {
  it('has one token per byte', async () => {
    const tokenizer = new Tokenizer(await json('tokenizer.json'), await json('tokenizer_config.json'))
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }), (text) => {
        const { ids } = tokenizer.encode(text)
        expect(ids).toEqual([...new TextEncoder().encode(text)])
        expect(tokenizer.decode(ids)).toBe(text)
      }),
    )
  })

  it('knows its special tokens by the ids in its configuration', async () => {
    const config = await json('config.json')
    const tokenizerConfig = await json('tokenizer_config.json')
    const tokenizer = new Tokenizer(await json('tokenizer.json'), tokenizerConfig)
    expect(tokenizer.encode('sort(1)=1<|endoftext|><|mask|>').ids.slice(-2)).toEqual([256, 259])
    expect(tokenizer.token_to_id(tokenizerConfig.eos_token)).toBe(config.eos_token_id)
    expect(tokenizer.get_vocab(true).size).toBe(config.vocab_size)
  })

  it('comes with text whose held-out part is apart, and whose rows fit the rows of the recipes', async () => {
    const read = async (file: string) =>
      (await readFile(join(folder, 'data', file), 'utf8'))
        .trimEnd()
        .split('\n')
        .map((line): string => JSON.parse(line).text)
    const train = await read('speeches.train.jsonl')
    const test = new Set(await read('speeches.test.jsonl'))
    expect(train.filter((text) => test.has(text))).toEqual([])
    for (const text of [...train, ...test]) expect(Buffer.byteLength(text)).toBeLessThan(240)
  })
})
