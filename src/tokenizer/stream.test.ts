import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { loadTokenizer, type Tokenizer } from './index.ts'
import { createTextStream, textOf, tokenText } from './stream.ts'

const tokenizers = readFileSync(new URL('./fixtures/tokenizers.jsonl', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line))
  .map(({ name, tokenizer }): [string, Tokenizer] => [
    name,
    // As all files of Llama 3 have it: what was written must not get shorter by it.
    loadTokenizer({
      'tokenizer.json': JSON.stringify(tokenizer),
      'tokenizer_config.json': '{"clean_up_tokenization_spaces": true}',
    }),
  ])
const named = (start: string) => tokenizers.find(([name]) => name.startsWith(start))![1]

const words = ['the', ' ', '  ', ' keeper', ' .', ' , ', " 's", ' !', '12', '\n', '北京', '😊', 'é', '(x)']
const text = fc.array(fc.constantFrom(...words), { maxLength: 12 }).map((parts) => parts.join(''))
const known = (tokenizer: Tokenizer, ids: readonly number[]) =>
  !ids.includes(tokenizer.tokenToId('<unk>') ?? -1) && (tokenizer.decode(ids).match(/<0x/) ?? []).length === 0

describe.each(tokenizers)('%s', (name, tokenizer) => {
  // Metaspace writes a text that begins with a space as it writes one without.
  const lossless = (begin: string) => !(name.startsWith('metaspace') && begin.startsWith(' '))

  test('pieces add up to the text that was encoded, and none ends inside a character', () => {
    fc.assert(
      fc.property(text, text, (before, behind) => {
        const [prompt, ids] = tokenizer.encodeParts([before, behind])
        if (!known(tokenizer, [...prompt, ...ids]) || !lossless(before + behind)) return
        const stream = createTextStream(tokenizer, { after: prompt })
        const pieces = ids.map((id) => stream.push(id))
        expect(pieces.map((piece) => piece.text).join('') + stream.end()).toBe(behind)
        for (const piece of pieces) expect(piece.text).not.toMatch(/\ufffd|[\ud800-\udbff]$/)
        const bytes = Uint8Array.from(pieces.flatMap((piece) => [...piece.bytes]))
        expect(new TextDecoder().decode(bytes)).toBe(behind)
      }),
    )
  })

  test('special tokens are left out, or written', () => {
    fc.assert(
      fc.property(text, text, (before, behind) => {
        const ids = tokenizer.encode(`${before}<end>${behind}`)
        if (!known(tokenizer, ids) || !lossless(before) || !lossless(behind)) return
        expect(textOf(tokenizer, ids, { special: 'written' })).toBe(`${before}<end>${behind}`)
        expect(textOf(tokenizer, ids)).toBe(before + behind)
      }),
    )
  })
})

test('a character that never became whole comes at the end', () => {
  const tokenizer = named('gpt2')
  const [first, second] = tokenizer.encode('€')
  const stream = createTextStream(tokenizer)
  expect(stream.push(first).text).toBe('')
  expect(stream.push(second).text).toBe('')
  expect(stream.end()).toBe('\ufffd')
})

test('a token alone keeps its space, and has its bytes where it is no character', () => {
  const llama = named('llama2: one word')
  expect(tokenText(llama, llama.tokenToId('▁the')!)).toBe(' the')
  expect(tokenText(llama, llama.tokenToId('<0xE2>')!)).toBe('bytes:\\xe2')
  expect(tokenText(llama, llama.tokenToId('<end>')!)).toBe('<end>')
  expect(tokenText(llama, 1e6)).toBe('token_id:1000000')
})

test('words joined by a decoder', () => {
  const vocab = { '[UNK]': 0, play: 1, '##ing': 2, games: 3, '.': 4 }
  const tokenizer = loadTokenizer({
    'tokenizer.json': JSON.stringify({
      model: { type: 'WordPiece', vocab, unk_token: '[UNK]', continuing_subword_prefix: '##' },
      pre_tokenizer: { type: 'BertPreTokenizer' },
      decoder: { type: 'WordPiece', prefix: '##' },
      added_tokens: [{ id: 0, content: '[UNK]', special: true }],
    }),
  })
  const ids = tokenizer.encode('playing games .')
  const stream = createTextStream(tokenizer)
  expect(ids.map((id) => stream.push(id).text)).toEqual(['play', 'ing', ' games', ' .'])
  expect(textOf(tokenizer, [3], { after: [1, 2] })).toBe(' games')
})
