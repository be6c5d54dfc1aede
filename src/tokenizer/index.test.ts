import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { loadTokenizer } from './index.ts'

interface Fixture {
  name: string
  tokenizer: Record<string, unknown>
  cases: [text: string, ids: number[], withSpecial: number[], decoded: string, withoutSpecial: string][]
  decodes: [ids: number[], decoded: string][]
}

const fixtures: Fixture[] = readFileSync(new URL('./fixtures/tokenizers.jsonl', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line))

function load(name: string, config: Record<string, unknown> = {}, more: Record<string, unknown> = {}) {
  const fixture = fixtures.find((candidate) => candidate.name.startsWith(name))!
  return loadTokenizer({
    'tokenizer.json': JSON.stringify({ ...fixture.tokenizer, ...more }),
    'tokenizer_config.json': JSON.stringify(config),
  })
}

describe('as the Rust library does', () => {
  describe.each(fixtures)('$name', ({ tokenizer: json, cases, decodes }) => {
    const tokenizer = loadTokenizer({ 'tokenizer.json': JSON.stringify(json) })

    test('encodes and decodes', () => {
      for (const [text, ids, withSpecial, decoded, withoutSpecial] of cases) {
        expect([text, tokenizer.encode(text)]).toEqual([text, ids])
        expect([text, tokenizer.encode(text, { addSpecialTokens: true })]).toEqual([text, withSpecial])
        expect(tokenizer.decode(ids)).toBe(decoded)
        expect(tokenizer.decode(Int32Array.from(ids), { skipSpecialTokens: true })).toBe(withoutSpecial)
      }
    })

    test('decodes ids in any order', () => {
      for (const [ids, decoded] of decodes) expect([ids, tokenizer.decode(ids)]).toEqual([ids, decoded])
    })
  })
})

describe('long texts', () => {
  const line = 'def add(a, b):  return a + b  # 北京 12\n'

  test.each(fixtures.map((fixture) => fixture.name))('%s: a text of many lines is its lines', (name) => {
    const tokenizer = load(name)
    const separate = Array.from({ length: 3000 }, () => tokenizer.encode(`<end>${line}`)).flat()
    expect(tokenizer.encode(`<end>${line}`.repeat(3000))).toEqual(separate)
  })

  test('splitting before spaces, where no merge crosses one, changes no id', () => {
    const whole = load('llama2: one word', {}, { pre_tokenizer: { type: 'FixedLength', length: 1 << 20 } })
    const json = fixtures.find((fixture) => fixture.name.startsWith('llama2: one word'))!.tokenizer
    const model = json.model as { vocab: Record<string, number> }
    // One token from another character into ▁, which no merge makes, keeps the library from splitting.
    const unsplit = load('llama2: one word', {}, { model: { ...model, vocab: { ...model.vocab, 'x▁': 440 } } })
    const split = load('llama2: one word')
    const text = fc.array(fc.constantFrom(' ', '  ', 'the', 'a', 'keeper', '▁', '12', '\n', '北', 'don', "'t"))
    fc.assert(
      fc.property(text, (parts) => {
        const ids = split.encode(parts.join(''))
        expect(ids).toEqual(unsplit.encode(parts.join('')))
        expect(ids).toEqual(whole.encode(parts.join('')))
      }),
    )
  })
})

describe('byteLength', () => {
  test.each(['smollm', 'gpt2', 'llama3'])('%s: counts the bytes of any text', (name) => {
    const tokenizer = load(name)
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(tokenizer.byteLength(tokenizer.encode(text))).toBe(new TextEncoder().encode(text).length)
      }),
    )
  })

  test('special tokens and unknown ids are 0, other added tokens their text', () => {
    const tokenizer = load('gpt2')
    expect(tokenizer.byteLength(tokenizer.encode('<bos>é<end>'))).toBe(2)
    expect(tokenizer.byteLength([tokenizer.tokenToId('foo bar')!])).toBe(7)
    expect(tokenizer.byteLength([-1, 1e9])).toBe(0)
  })

  test('SentencePiece: spaces and lone bytes are one byte, the leading space included', () => {
    const tokenizer = load('llama2: one word')
    const ids = tokenizer.encode('a  keeper नि')
    expect(tokenizer.byteLength(ids)).toBe(1 + new TextEncoder().encode('a  keeper नि').length)
  })

  test.each(['smollm', 'gpt2', 'llama3', 'llama2: one word'])('%s: a text is the bytes of its tokens', (name) => {
    const tokenizer = load(name)
    const bytes = tokenizer.tokenBytes()
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const ids = tokenizer.encode(text)
        const joined = Uint8Array.from(ids.flatMap((id) => [...(bytes[id] ?? [])]))
        expect(joined.length).toBe(tokenizer.byteLength(ids))
        const decoded = new TextDecoder('utf-8', { ignoreBOM: true }).decode(joined)
        expect([decoded, decoded.replace(/^ /, '')]).toContain(tokenizer.decode(ids))
      }),
    )
    for (const id of tokenizer.specialTokenIds) expect(bytes[id]).toBeUndefined()
  })

  test('WordPiece: a word begins with a space', () => {
    const vocab = { '[UNK]': 0, play: 1, '##ing': 2, games: 3 }
    const json = {
      model: { type: 'WordPiece', vocab, unk_token: '[UNK]', continuing_subword_prefix: '##' },
      pre_tokenizer: { type: 'BertPreTokenizer' },
      decoder: { type: 'WordPiece', prefix: '##' },
      added_tokens: [{ id: 0, content: '[UNK]', special: true }],
    }
    const tokenizer = loadTokenizer({ 'tokenizer.json': JSON.stringify(json) })
    const ids = tokenizer.encode('playing games')
    expect(ids).toEqual([1, 2, 3])
    expect(tokenizer.byteLength(ids)).toBe(' playing games'.length)
    expect(() => tokenizer.tokenBytes()).toThrow(/byte-level or SentencePiece/)
  })
})

describe('special tokens', () => {
  test('are found under their names, as text or as added token', () => {
    const tokenizer = load('gpt2', { bos_token: '<bos>', eos_token: { content: '<end>', lstrip: false } })
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([0, 1, undefined])
    expect(tokenizer.specialTokenIds).toEqual([0, 1, tokenizer.tokenToId('<m>'), tokenizer.tokenToId('<r>')])
    expect(tokenizer.idToToken(1)).toBe('<end>')
    expect(tokenizer.idToToken(tokenizer.vocabSize)).toBeUndefined()
    expect(tokenizer.idToToken(tokenizer.vocabSize - 1)).toBe('foo bar')
  })

  test('tokenizer_config.json goes before special_tokens_map.json; unknown names are no token', () => {
    const json = JSON.stringify(fixtures[0]!.tokenizer)
    const tokenizer = loadTokenizer({
      'tokenizer.json': json,
      'special_tokens_map.json': '{"eos_token": "<bos>", "pad_token": "<end>"}',
      'tokenizer_config.json': '{"eos_token": "<end>", "bos_token": "<nowhere>"}',
    })
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([undefined, 1, 1])
    expect(tokenizer.files()['tokenizer.json']).toBe(json)
  })
})

describe('chat template', () => {
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Hi' },
  ]
  const template =
    "{{ bos_token }}{% for message in messages %}\n  {%- if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}" +
    "{{ '[' + message['role'] + ']' + message['content'] + eos_token }}{% endfor %}" +
    '{% if add_generation_prompt %}[assistant]{% endif %}{% if tools is not none %}tools{% endif %}'
  const names = { bos_token: '<bos>', eos_token: '<end>' }

  test('gets the variables that Hugging Face passes', () => {
    const tokenizer = load('gpt2', { ...names, chat_template: template })
    const text = '<bos>[system]Be brief.<end>[user]Hi<end>'
    expect(tokenizer.applyChatTemplate(messages)).toBe(text)
    expect(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true })).toBe(`${text}[assistant]`)
  })

  test('knows the date', () => {
    const tokenizer = load('gpt2', { chat_template: "{{ strftime_now('%Y') }}" })
    expect(tokenizer.applyChatTemplate([])).toBe(String(new Date().getFullYear()))
  })

  test('comes from a list of named ones, or from its own file', () => {
    const named = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'default' },
    ]
    const tokenizer = load('gpt2', { chat_template: named })
    expect(tokenizer.applyChatTemplate(messages)).toBe('default')
    expect(tokenizer.applyChatTemplate(messages, { tools: [] })).toBe('default')
    const tools = [{ type: 'function' as const, function: { name: 'f' } }]
    expect(tokenizer.applyChatTemplate(messages, { tools })).toBe('tools')
    const files = { 'tokenizer.json': JSON.stringify(fixtures[0]!.tokenizer), 'chat_template.jinja': 'file' }
    expect(loadTokenizer(files).chatTemplate).toBe('file')
    expect(() => load('gpt2', { chat_template: [{ name: 'rag', template: '' }] })).toThrow(/named "default"/)
    expect(() => load('gpt2', { chat_template: 7 })).toThrow(UserError)
  })

  test('gets messages as transformers gives them: nulls are absent, reasoning has the names that templates read', () => {
    const show = load('gpt2', { chat_template: '{{ messages[0] | tojson }}' })
    const message = { role: 'assistant', content: '', name: null, thinking: 'hm' } as unknown as {
      role: string
      content: string
    }
    expect(JSON.parse(show.applyChatTemplate([message]))).toEqual({
      role: 'assistant',
      content: '',
      thinking: 'hm',
      reasoning_content: 'hm',
    })
  })

  test('gets the arguments of calls as an object, or as JSON where it wants a text', () => {
    const call = { type: 'function' as const, function: { name: 'f', arguments: { a: [1, 'ü'] } } }
    const called = [{ role: 'assistant', content: '', tool_calls: [call] }]
    const render = (shown: string) => load('gpt2', { chat_template: `{{ ${shown} }}` }).applyChatTemplate(called)
    expect(render('messages[0].tool_calls[0].function.arguments.a[0]')).toBe('1')
    expect(render("'<' + messages[0].tool_calls[0].function.arguments + '>'")).toBe('<{"a": [1, "ü"]}>')
    expect(() => render('missing.x')).toThrow(/'missing' is undefined/)
  })

  test('its errors, and its absence, are a user error', () => {
    const tokenizer = load('gpt2', { ...names, chat_template: template })
    expect(() => tokenizer.applyChatTemplate([{ role: 'tool', content: '' }])).toThrow(/chat template failed: no tools/)
    expect(() => load('gpt2', { chat_template: '{% if %}' }).applyChatTemplate(messages)).toThrow(UserError)
    expect(() => load('gpt2').applyChatTemplate(messages)).toThrow(/no chat template/)
  })
})

describe('files that cannot be used', () => {
  const model = { type: 'BPE', vocab: { a: 0 }, merges: [] }

  test.each([
    ['{', /tokenizer\.json is not valid JSON/],
    ['[]', /must hold a JSON object/],
    ['{}', /no "model" object/],
    [JSON.stringify({ model: { type: 'BPE' } }), /no "model\.vocab"/],
    [JSON.stringify({ model: { ...model, vocab: { a: 4e9 } } }), /"a" has the id 4000000000/],
    [JSON.stringify({ model: { ...model, vocab: { a: '0' } } }), /"a" has the id "0"/],
    [JSON.stringify({ model: { type: 'Unigram', vocab: ['a'] } }), /pairs of a token and its score/],
    [JSON.stringify({ model, added_tokens: 1 }), /added_tokens must be a list/],
    [JSON.stringify({ model, added_tokens: [{ id: 1, content: '' }] }), /non-empty string "content"/],
    [JSON.stringify({ model, added_tokens: [{ id: -1, content: 'x' }] }), /"x" has the id -1/],
    [JSON.stringify({ model: { type: 'BPE', vocab: { a: 0 } } }), /cannot be used/],
    [JSON.stringify({ model, pre_tokenizer: { type: 'Nonsense' } }), /cannot be used: .*Nonsense/],
  ])('%s', (text, message) => {
    expect(() => loadTokenizer({ 'tokenizer.json': text })).toThrow(UserError)
    expect(() => loadTokenizer({ 'tokenizer.json': text })).toThrow(message)
  })

  test('names what is missing', () => {
    expect(() => loadTokenizer({ 'config.json': '{}' })).toThrow(/no tokenizer\.json among config\.json/)
  })

  test('any change to a good file gives a tokenizer or a user error', () => {
    const text = JSON.stringify(fixtures[0]!.tokenizer)
    const junk = fc.constantFrom('', '"', '}', '[', 'null', '-1', '9e99', '{}', 'true', ':', ',')
    fc.assert(
      fc.property(fc.nat(text.length), fc.nat(6), junk, (at, removed, inserted) => {
        try {
          const tokenizer = loadTokenizer({
            'tokenizer.json': text.slice(0, at) + inserted + text.slice(at + removed),
          })
          tokenizer.encode('The old lighthouse, 12!')
        } catch (error) {
          if (!(error instanceof UserError)) throw error
        }
      }),
      { numRuns: 150 },
    )
  })
})

describe('BOS and EOS around a text', () => {
  const template = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
  }
  const around = (config: Record<string, unknown>, processor: unknown) => {
    const added = ['<s>', '</s>'].map((content, i) => ({ id: 20 + i, content, special: true }))
    const json = { model: { type: 'BPE', vocab: { a: 0 }, merges: [] }, added_tokens: added, post_processor: processor }
    const names = { bos_token: '<s>', eos_token: '</s>' }
    return loadTokenizer({
      'tokenizer.json': JSON.stringify(json),
      'tokenizer_config.json': JSON.stringify({ ...names, ...config }),
    }).encode('a', { addSpecialTokens: true })
  }

  test.each([
    ['as tokenizer.json says', {}, template, [20, 0]],
    ['as it says nothing', {}, null, [0]],
    ['added by the config', { add_bos_token: true, add_eos_token: true }, null, [20, 0, 21]],
    ['once, where both say so', { add_bos_token: true }, template, [20, 0]],
    [
      'taken away by the config of a Llama',
      { add_bos_token: false, tokenizer_class: 'LlamaTokenizerFast' },
      template,
      [0],
    ],
    ['kept in a class that has no such setting', { add_bos_token: false }, template, [20, 0]],
    ['null is no setting', { add_bos_token: null }, template, [20, 0]],
  ])('%s', (_, config, processor, expected) => {
    expect(around(config, processor)).toEqual(expected)
  })
})

test.each([
  ['doubling', Array.from({ length: 30 }, () => ({ type: 'Replace', pattern: { String: 'a' }, content: 'aa' }))],
  ['one long replacement', [{ type: 'Replace', pattern: { String: 'a' }, content: 'a'.repeat(65) }]],
  ['regular expressions', [1, 2].map(() => ({ type: 'Replace', pattern: { Regex: '.' }, content: '123456789' }))],
  ['many steps', Array.from({ length: 300 }, () => ({ type: 'Lowercase' }))],
])('a normaliser that makes long texts of short ones is refused: %s', (_, normalizers) => {
  const json = {
    model: { type: 'BPE', vocab: { a: 0 }, merges: [] },
    normalizer: { type: 'Sequence', normalizers },
  }
  expect(() => loadTokenizer({ 'tokenizer.json': JSON.stringify(json) })).toThrow('tokenizer.json: its normalizer')
})

test.each([
  ['a sequence of processors that is none', { type: 'TemplateProcessing', single: 5, special_tokens: {} }],
  ['a template of texts', { type: 'TemplateProcessing', single: ['aaaa'], special_tokens: {} }],
])('what the library cannot do with a file is an error of that file: %s', (_, processor) => {
  const json = { model: { type: 'BPE', vocab: { a: 0 }, merges: [] }, post_processor: processor }
  expect(() =>
    loadTokenizer({ 'tokenizer.json': JSON.stringify(json) }).encode('a', { addSpecialTokens: true }),
  ).toThrow(UserError)
})

test.each([
  ['normalizer.pattern', { normalizer: { type: 'Replace', pattern: {}, content: '' } }],
  ['normalizer.normalizers.0.pattern', { normalizer: sequence('normalizers', { type: 'Replace', pattern: '_' }) }],
  ['pre_tokenizer.pretokenizers.0.pattern', { pre_tokenizer: sequence('pretokenizers', { type: 'Split' }) }],
  ['decoder.decoders.0.pattern', { decoder: sequence('decoders', { type: 'Replace', pattern: { Regex: 5 } }) }],
])('a pattern that is none is refused by its place: %s', (place, part) => {
  const json = { model: { type: 'BPE', vocab: { a: 0 }, merges: [] }, ...part }
  expect(() => loadTokenizer({ 'tokenizer.json': JSON.stringify(json) })).toThrow(`tokenizer.json: ${place}: expected`)
})

function sequence(name: string, part: object) {
  return { type: 'Sequence', [name]: [part] }
}
