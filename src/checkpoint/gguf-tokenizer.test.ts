import { readFileSync } from 'node:fs'
import { Tokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import type { GgufMetadata, GgufValue } from './gguf.ts'
import { ggufTokenizerFiles } from './gguf-tokenizer.ts'

/** Byte-level BPE with all 256 bytes (as GPT-2 writes them), no merges but those given, then the special tokens. */
const vocabulary = (pre: string | undefined, merges: string[], extra: Record<string, GgufValue> = {}): GgufMetadata => {
  const visible = (byte: number): boolean =>
    (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad && byte <= 0xff)
  let next = 256
  const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(visible(byte) ? byte : next++))
  const special = ['<s>', '</s>', '<user>', '[unused]']
  const tokens = [...bytes, ...merges.map((merge) => merge.replace(' ', '')), ...special]
  const types = Int32Array.from(tokens, (token) => [3, 3, 4, 5][special.indexOf(token)] ?? 1)
  return new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.token_type', types],
    ['tokenizer.ggml.merges', merges],
    ['tokenizer.ggml.bos_token_id', tokens.indexOf('<s>')],
    ['tokenizer.ggml.eos_token_id', tokens.indexOf('</s>')],
    ...(pre === undefined ? [] : [['tokenizer.ggml.pre', pre] as const]),
    ...Object.entries(extra),
  ])
}

const load = (metadata: GgufMetadata): Tokenizer => {
  const files = ggufTokenizerFiles('a.gguf', metadata)
  return new Tokenizer(JSON.parse(files['tokenizer.json']!), JSON.parse(files['tokenizer_config.json']!))
}

/** Merges that join whatever the pre-tokenizer leaves together, so that tokens show where it cut. */
const joining = [
  'a b',
  'ab 1',
  'Ġ ab',
  '1 2',
  '12 3',
  '123 4',
  '. .',
  '.. .',
  "' s",
  "' S",
  'Ġ Ġ',
  'Ċ Ċ',
  'Ċ a',
  '. Ċ',
  '( ab',
]

const cut = (pre: string | undefined, text: string): string[] =>
  load(vocabulary(pre, joining)).encode(text, { add_special_tokens: false }).tokens

describe('pre-tokenizers', () => {
  // Expected: what Python's tokenizers 0.23 makes of the same tokenizer.json.
  const cases: [string | undefined, string, string[]][] = [
    ['gpt-2', 'ab1234', ['ab', '1234']],
    ['smollm', 'ab1234', ['ab', '1', '2', '3', '4']],
    ['llama-bpe', 'ab1234', ['ab', '123', '4']],
    ['qwen2', 'ab1234', ['ab', '1', '2', '3', '4']],
    ['default', 'ab1234', ['ab', '123', '4']],
    [undefined, 'ab1234', ['ab', '123', '4']],
    ['gpt-2', "ab's ab'S", ['ab', "'s", 'Ġab', "'S".slice(0, 1), 'S']],
    ['llama-bpe', "ab's ab'S", ['ab', "'s", 'Ġab', "'S"]],
    ['gpt-2', '...\nab', ['...', 'Ċ', 'ab']],
    ['llama-bpe', '.\nab', ['.Ċ', 'ab']],
    ['llama-bpe', '(ab', ['(ab']],
    ['gpt-2', '(ab', ['(', 'ab']],
    ['default', '...ab', ['...', 'ab']],
    ['smollm', 'ab   ab', ['ab', 'ĠĠ', 'Ġab']],
    ['qwen2', 'ab\n\nab', ['ab', 'ĊĊ', 'ab']],
    ['smollm', '\n\n½', ['ĊĊ', 'Â', '½']],
    ['deepseek-r1-qwen', 'ab1234', ['ab', '1', '2', '3', '4']],
    ['starcoder', 'ab1234', ['ab', '1', '2', '3', '4']],
    ['llama3', 'ab1234', ['ab', '123', '4']],
    ['gpt-4o', 'ab1234', ['ab', '123', '4']],
    ['tekken', "ab's1234", ['ab', "'s", '1', '2', '3', '4']],
    ['llada-moe', "ab'S\n\nab", ['ab', "'S", 'ĊĊ', 'ab']],
    ['deepseek-coder', '...\nab12', ['...', 'Ċ', 'ab', '1', '2']],
    ['deepseek-coder', '(ab', ['(', 'ab']],
  ]
  it.each(cases)('%s cuts %j', (pre, text, tokens) => {
    expect(cut(pre, text)).toEqual(tokens)
  })

  it('qwen2 composes characters, the others do not', () => {
    const decomposed = 'e\u0301'
    expect(cut('qwen2', decomposed)).toEqual(['Ã', '©'])
    expect(cut('smollm', decomposed)).toHaveLength(3)
  })

  it('llama-bpe takes a whole piece that is a token before it merges', () => {
    const metadata = vocabulary('llama-bpe', ['a b'], {})
    const tokens = [...(metadata.get('tokenizer.ggml.tokens') as string[]), 'zzz']
    const types = Int32Array.of(...(metadata.get('tokenizer.ggml.token_type') as Int32Array), 1)
    const files = new Map<string, GgufValue>([
      ...metadata,
      ['tokenizer.ggml.tokens', tokens],
      ['tokenizer.ggml.token_type', types],
    ])
    expect(load(files).encode('zzz', { add_special_tokens: false }).tokens).toEqual(['zzz'])
    expect(load(new Map([...files, ['tokenizer.ggml.pre', 'gpt-2']])).encode('zzz').tokens).toEqual(['z', 'z', 'z'])
  })
})

describe('SentencePiece', () => {
  // A BPE model of 380 pieces that Python's sentencepiece 0.2 trained, with its ids and its decoded texts.
  const golden: {
    tokens: string[]
    scores: number[]
    types: number[]
    cases: { text: string; ids: number[]; decoded: string }[]
  } = JSON.parse(readFileSync(new URL('../../test/checkpoint/sentencepiece.json', import.meta.url), 'utf8'))
  const metadata = (extra: Record<string, GgufValue> = {}): GgufMetadata =>
    new Map<string, GgufValue>([
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.tokens', golden.tokens],
      ['tokenizer.ggml.scores', Float32Array.from(golden.scores)],
      ['tokenizer.ggml.token_type', Int32Array.from(golden.types)],
      ['tokenizer.ggml.unknown_token_id', 0],
      ['tokenizer.ggml.bos_token_id', 1],
      ['tokenizer.ggml.eos_token_id', 2],
      ...Object.entries(extra),
    ])

  it('gives the ids and texts of sentencepiece', () => {
    const tokenizer = load(metadata())
    for (const { text, ids, decoded } of golden.cases) {
      expect(tokenizer.encode(text, { add_special_tokens: false }).ids).toEqual(ids)
      if (ids.length > 0) expect(tokenizer.decode(ids)).toBe(decoded)
    }
  })

  it('adds BOS and a space before the text unless the file says otherwise', () => {
    expect(load(metadata()).encode('a').tokens).toEqual(['<s>', '▁a'])
    const bare = load(metadata({ 'tokenizer.ggml.add_bos_token': false, 'tokenizer.ggml.add_space_prefix': false }))
    const { ids, tokens } = bare.encode('a b')
    expect(tokens).toEqual(['a', '▁b'])
    expect(bare.decode(ids)).toBe('a b')
  })

  it('refuses a vocabulary without scores or bytes', () => {
    expect(() => load(metadata({ 'tokenizer.ggml.scores': [] }))).toThrow(/scores" is missing/)
    const types = Int32Array.from(golden.types, (type) => (type === 6 ? 1 : type))
    expect(() => load(metadata({ 'tokenizer.ggml.token_type': types }))).toThrow(/0 of 256 byte tokens/)
  })
})

describe('special tokens', () => {
  it('recognises control and user-defined tokens, and skips only the former', () => {
    const tokenizer = load(vocabulary('smollm', ['a b']))
    const { ids, tokens } = tokenizer.encode('ab<user>ab</s>')
    expect(tokens).toEqual(['ab', '<user>', 'ab', '</s>'])
    expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe('ab<user>ab')
  })

  it('adds BOS and EOS where the file says so, or llama.cpp does by default', () => {
    const tokens = (pre: string, extra: Record<string, GgufValue>) =>
      load(vocabulary(pre, ['a b'], extra)).encode('ab').tokens
    expect(tokens('smollm', {})).toEqual(['ab'])
    expect(tokens('llama-bpe', {})).toEqual(['<s>', 'ab'])
    expect(tokens('llama-bpe', { 'tokenizer.ggml.add_bos_token': false })).toEqual(['ab'])
    expect(tokens('gpt-2', { 'tokenizer.ggml.add_bos_token': true, 'tokenizer.ggml.add_eos_token': true })).toEqual([
      '<s>',
      'ab',
      '</s>',
    ])
  })

  it('writes what tokenizer_config.json holds', () => {
    const metadata = vocabulary('smollm', [], {
      'tokenizer.chat_template': 'template',
      'general.architecture': 'llama',
      'llama.context_length': 77,
    })
    expect(JSON.parse(ggufTokenizerFiles('a.gguf', metadata)['tokenizer_config.json']!)).toEqual({
      tokenizer_class: 'PreTrainedTokenizerFast',
      add_bos_token: false,
      add_eos_token: false,
      clean_up_tokenization_spaces: false,
      bos_token: '<s>',
      eos_token: '</s>',
      model_max_length: 77,
      chat_template: 'template',
    })
  })

  it('leaves out tokens that only fill up ids', () => {
    const json = JSON.parse(ggufTokenizerFiles('a.gguf', vocabulary('smollm', []))['tokenizer.json']!)
    expect(json.model.vocab).not.toHaveProperty('[unused]')
    expect(json.model.vocab['<user>']).toBe(258)
  })
})

describe('as llama.cpp reads what is missing', () => {
  const without = (metadata: GgufMetadata, ...keys: string[]): GgufMetadata =>
    new Map([...metadata].filter(([key]) => !keys.includes(`${key.replace('tokenizer.ggml.', '')}`)))

  it('ids beyond the vocabulary are none', () => {
    const config = (id: number) =>
      JSON.parse(
        ggufTokenizerFiles('a', vocabulary('smollm', [], { 'tokenizer.ggml.padding_token_id': id }))[
          'tokenizer_config.json'
        ]!,
      )
    expect(config(257)).toHaveProperty('pad_token', '</s>')
    for (const id of [-1, 9999, 2 ** 32 - 1]) expect(config(id)).not.toHaveProperty('pad_token')
  })

  it('without types, tokens with a role or a name like a mark are special', () => {
    const metadata = vocabulary('smollm', ['a b'])
    const tokens = [...(metadata.get('tokenizer.ggml.tokens') as string[]), '<|im_end|>']
    const { tokens: found } = load(
      without(new Map([...metadata, ['tokenizer.ggml.tokens', tokens]]), 'token_type'),
    ).encode('ab</s>ab<|im_end|>')
    expect(found).toEqual(['ab', '</s>', 'ab', '<|im_end|>'])
  })

  it('flags may be 0 and 1', () => {
    const tokens = (flag: number) =>
      load(vocabulary('smollm', ['a b'], { 'tokenizer.ggml.add_bos_token': flag })).encode('ab').tokens
    expect(tokens(1)).toEqual(['<s>', 'ab'])
    expect(tokens(0)).toEqual(['ab'])
  })

  it('a vocabulary of bytes and merges needs its merges', () => {
    expect(() => load(without(vocabulary('smollm', ['a b']), 'merges'))).toThrow(/merges" is missing/)
    expect(
      load(without(vocabulary('smollm', []), 'merges')).encode('ab', { add_special_tokens: false }).ids,
    ).toHaveLength(2)
  })

  it('templates for some uses are kept by name', () => {
    const metadata = vocabulary('smollm', [], {
      'tokenizer.chat_template': 'usual',
      'tokenizer.chat_templates': ['tool_use', 'gone'],
      'tokenizer.chat_template.tool_use': 'with tools',
    })
    expect(JSON.parse(ggufTokenizerFiles('a', metadata)['tokenizer_config.json']!).chat_template).toEqual([
      { name: 'default', template: 'usual' },
      { name: 'tool_use', template: 'with tools' },
    ])
  })

  it('any value of any key is read or refused by name', () => {
    const value: fc.Arbitrary<GgufValue> = fc.oneof(
      fc.string(),
      fc.double(),
      fc.integer(),
      fc.boolean(),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n }),
      fc.int32Array({ maxLength: 4 }),
      fc.float32Array({ maxLength: 260, minLength: 260 }),
      fc.array(fc.string(), { maxLength: 4 }),
    )
    const keys = [
      ...vocabulary('smollm', []).keys(),
      'tokenizer.ggml.scores',
      'tokenizer.ggml.add_bos_token',
      'tokenizer.chat_template',
      'tokenizer.chat_templates',
      'tokenizer.ggml.unknown_token_id',
    ]
    fc.assert(
      fc.property(fc.constantFrom(...keys), value, (key, given) => {
        try {
          ggufTokenizerFiles('a.gguf', vocabulary('smollm', ['a b'], { [key]: given }))
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
          expect((error as Error).message).toMatch(/^a\.gguf: metadata "tokenizer\./)
        }
      }),
      { numRuns: 500 },
    )
  })
})

describe('refusing', () => {
  const cases: [string, Record<string, GgufValue>, RegExp][] = [
    ['another kind of vocabulary', { 'tokenizer.ggml.model': 't5' }, /tokenizer.ggml.model": .*"t5"/],
    [
      'an unknown pre-tokenizer',
      { 'tokenizer.ggml.pre': 'viking' },
      /tokenizer.ggml.pre": "viking" is not supported; .*smollm/,
    ],
    ['no tokens', { 'tokenizer.ggml.tokens': [] }, /no vocabulary/],
    ['tokens that are not text', { 'tokenizer.ggml.tokens': Int32Array.of(1) }, /tokenizer.ggml.tokens": expected/],
    ['a token twice', { 'tokenizer.ggml.tokens': new Array(260).fill('a') }, /"a" occurs twice/],
    ['types of other tokens', { 'tokenizer.ggml.token_type': Int32Array.of(1) }, /1 entries for 260 tokens/],
    ['a merge of nothing', { 'tokenizer.ggml.merges': ['a z'] }, /merges": entry 0, "a z"/],
    ['a merge of three', { 'tokenizer.ggml.merges': ['a b c'] }, /entry 0/],
    ['a flag that is text', { 'tokenizer.ggml.add_bos_token': 'no' }, /add_bos_token": expected true or false/],
  ]
  it.each(cases)('%s', (_, change, message) => {
    const metadata = vocabulary('smollm', [], change)
    expect(() => ggufTokenizerFiles('a.gguf', metadata)).toThrow(UserError)
    expect(() => ggufTokenizerFiles('a.gguf', metadata)).toThrow(message)
  })
})
