import { describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { cut, encodePrompt, type RenderOptions, toDocument } from './document.ts'
import { columnNames, type Example, readExample, splitPoint } from './example.ts'

const vocab = Object.fromEntries(Array.from({ length: 95 }, (_, i) => [String.fromCharCode(32 + i), i]))
const END = 96
const BOS = 97

/** One token per character, `\n` included, and two special ones. */
function characters(config: Record<string, unknown> = {}, more: Record<string, unknown> = {}) {
  return loadTokenizer({
    'tokenizer.json': JSON.stringify({
      model: { type: 'BPE', vocab: { ...vocab, '\n': 95 }, merges: [] },
      added_tokens: [
        { id: END, content: '<end>', special: true },
        { id: BOS, content: '<bos>', special: true },
      ],
      decoder: { type: 'Fuse' },
      ...more,
    }),
    'tokenizer_config.json': JSON.stringify({ eos_token: '<end>', ...config }),
  })
}

const CHATML =
  '{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'

const plain: RenderOptions = { template: 'plain', separator: '', turns: 'all' }
const chat: RenderOptions = { template: 'chat', separator: '', turns: 'all' }

/** The document as text, with what may be masked in brackets. */
function show(example: Example, tokenizer = characters(), options = plain): string {
  const document = toDocument('d', example, tokenizer, options)
  if (typeof document === 'string') return `bad: ${document}`
  expect(document.maskable.length).toBe(document.ids.length)
  let text = ''
  for (const [i, id] of document.ids.entries()) {
    if (document.maskable[i] !== (document.maskable[i - 1] ?? 0)) text += document.maskable[i] ? '[' : ']'
    text += tokenizer.idToToken(id)
  }
  return document.maskable.at(-1) ? `${text}]` : text
}

const turns = (...contents: string[]): Example => ({
  kind: 'messages',
  messages: contents.map((content, i) => ({ role: i % 2 ? 'assistant' : 'user', content })),
})

describe('toDocument', () => {
  test('a text may be masked throughout and ends with EOS, once', () => {
    expect(show({ kind: 'text', text: 'abc' })).toBe('[abc<end>]')
    expect(show({ kind: 'text', text: 'abc<end>' })).toBe('[abc<end>]')
  })

  test('BOS stands before a text or plain prompt where the tokenizer puts one, and is never masked', () => {
    const processor = {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<bos>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
    }
    const tokenizer = characters({ bos_token: '<bos>', chat_template: CHATML }, { post_processor: processor })
    expect(show({ kind: 'text', text: 'a' }, tokenizer)).toBe('<bos>[a<end>]')
    expect(show({ kind: 'prompt', prompt: 'p', completion: 'c' }, tokenizer)).toBe('<bos>p[c<end>]')
    expect(show({ kind: 'prompt', prompt: 'p', completion: 'c' }, tokenizer, chat)).toBe(
      '<user>p<end>\n<assistant>[c<end>]',
    )
    expect(encodePrompt('p', tokenizer, plain)[0]).toBe(BOS)
  })

  test('of a prompt with its completion only the completion may be masked', () => {
    const example: Example = { kind: 'prompt', prompt: '1+1=', completion: '2' }
    expect(show(example)).toBe('1+1=[2<end>]')
    expect(show(example, characters(), { ...plain, separator: '\n' })).toBe('1+1=\n[2<end>]')
  })

  test('of a chat the assistant turns, through the mark that ends them', () => {
    const tokenizer = characters({ chat_template: CHATML })
    expect(show(turns('a', 'b', 'c', 'd'), tokenizer, chat)).toBe(
      '<user>a<end>\n<assistant>[b<end>]\n<user>c<end>\n<assistant>[d<end>]',
    )
    expect(show(turns('a', 'b', 'c', 'd'), tokenizer, { ...chat, turns: 'last' })).toBe(
      '<user>a<end>\n<assistant>b<end>\n<user>c<end>\n<assistant>[d<end>]',
    )
    expect(show(turns('a', 'b', 'c'), tokenizer, chat)).toBe('<user>a<end>\n<assistant>[b<end>]')
  })

  test('a turn that ends without EOS keeps its own end, and EOS closes the document', () => {
    const template =
      '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}'
    expect(show(turns('a', 'b', 'c', 'd'), characters({ chat_template: template }), chat)).toBe(
      'user: a\nassistant: [b\n]user: c\nassistant: [d\n<end>]',
    )
  })

  test('a template that trims turns, or writes the last one differently, is followed', () => {
    const thinking =
      "{% for m in messages %}<{{ m.role }}>{% if loop.last and m.role == 'assistant' %}(thought){% endif %}" +
      '{{ m.content | trim }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'
    expect(show(turns('a', ' b ', 'c', 'd\n'), characters({ chat_template: thinking }), chat)).toBe(
      '<user>a<end>\n<assistant>[b<end>]\n<user>c<end>\n<assistant>[(thought)d<end>]',
    )
  })

  test('a template that refuses or hides a chat makes a bad row', () => {
    const refuses = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}x"
    const example: Example = { kind: 'messages', messages: [{ role: 'assistant', content: 'b' }] }
    expect(show(example, characters({ chat_template: refuses }), chat)).toMatch(
      /bad: the chat template failed: user first/,
    )
    const hides = '{% for m in messages %}<{{ m.role }}>{% endfor %}'
    expect(show(turns('a', 'b'), characters({ chat_template: hides }), chat)).toMatch(
      /bad: the chat template rewrites message 1/,
    )
  })

  test('messages under the plain template, or a tokenizer without EOS, are errors', () => {
    expect(() => show(turns('a', 'b'))).toThrow(UserError)
    expect(() => show({ kind: 'text', text: 'a' }, characters({ eos_token: null }))).toThrow(/no EOS token/)
  })

  test('encodePrompt gives the ids before the completion', () => {
    const tokenizer = characters({ chat_template: CHATML })
    for (const options of [plain, chat, { ...plain, separator: '\n' }]) {
      const document = toDocument('d', { kind: 'prompt', prompt: 'p', completion: 'c' }, tokenizer, options)
      if (typeof document === 'string') throw new Error(document)
      expect([...document.ids.slice(0, document.maskable.indexOf(1))]).toEqual(encodePrompt('p', tokenizer, options))
    }
    expect(() => encodePrompt([{ role: 'user', content: 'p' }], tokenizer, plain)).toThrow(UserError)
  })
})

describe('cut', () => {
  const document = (maskable: number[]) => ({
    id: 'd',
    ids: Int32Array.from(maskable, (_, i) => i),
    maskable: Uint8Array.from(maskable),
  })
  const lengths = (maskable: number[], length: number, hasPrompt = false) =>
    cut(document(maskable), length, hasPrompt).map((piece) => [piece.id, ...piece.ids])

  test('texts into pieces of a row, without an EOS left alone', () => {
    expect(lengths([1, 1, 1, 1, 1, 1, 1, 1], 3)).toEqual([
      ['d', 0, 1, 2],
      ['d+3', 3, 4, 5],
      ['d+6', 6, 7],
    ])
    expect(lengths([1, 1, 1, 1], 3)).toEqual([['d', 0, 1, 2]])
    expect(lengths([1], 3)).toEqual([['d', 0]])
  })

  test('a completion loses its end with its row; a prompt alone is nothing', () => {
    expect(lengths([0, 1, 1, 1, 1], 3, true)).toEqual([['d', 0, 1, 2]])
    expect(lengths([0, 0, 0, 1, 1], 3, true)).toEqual([])
  })
})

describe('readExample', () => {
  const read = (row: unknown, columns = {}) => readExample(row, columnNames(columns))

  test('takes messages before prompts before texts, under the names given', () => {
    const messages = [{ role: 'assistant', content: 'b', extra: 1 }]
    expect(read({ messages, prompt: 'p', completion: 'c', text: 't' })).toEqual({ kind: 'messages', messages })
    expect(read({ messages: null, prompt: 'p', completion: 'c' })).toEqual({
      kind: 'prompt',
      prompt: 'p',
      completion: 'c',
    })
    expect(read({ prompt: 'p', text: 't' })).toEqual({ kind: 'text', text: 't' })
    expect(read({ question: 'q', answer: 'a' }, { prompt: 'question', completion: 'answer' })).toEqual({
      kind: 'prompt',
      prompt: 'q',
      completion: 'a',
    })
  })

  test.each([
    [1, /not a JSON object/],
    [null, /not a JSON object/],
    [['text'], /not a JSON object/],
    [{}, /the row has nothing/],
    [{ question: 'q' }, /the row has question; name its columns/],
    [{ text: 7 }, /"text" is not a text/],
    [{ text: '' }, /"text" is empty/],
    [{ prompt: {}, completion: 'c' }, /"prompt" is neither a text nor a list of messages/],
    [{ prompt: 'p', completion: '' }, /"completion" is empty/],
    [{ prompt: 'p', completion: null }, /the row has prompt, completion/],
    [{ prompt: 'p', chosen: 'a', rejected: 'b' }, /training on preferences/],
    [{ messages: 'x' }, /"messages" is not a list/],
    [{ messages: [] }, /no assistant turn/],
    [{ messages: [null] }, /"messages"\[0\] is not an object/],
    [{ messages: [{ content: 'a' }] }, /"messages"\[0\] needs a "role"/],
    [{ messages: [{ role: 'user' }] }, /"messages"\[0\] has no "content"/],
    [{ messages: [{ role: 'user', content: [] }] }, /no assistant turn/],
    [{ messages: [{ role: 'user', content: 'a' }] }, /no assistant turn/],
    [JSON.parse('{"__proto__": {"text": "x"}}'), /no "messages"/],
  ])('%j', (row, reason) => {
    expect(read(row)).toMatch(reason)
  })
})

test('splitPoint depends on the text alone and is spread evenly', () => {
  const text = (value: string): Example => ({ kind: 'text', text: value })
  expect(splitPoint(text('abc'))).toBe(0.7644275934435427) // another value would move documents across the split
  const prompt = (p: string, completion: string): Example => ({ kind: 'prompt', prompt: p, completion })
  expect(splitPoint(prompt('ab', 'c'))).not.toBe(splitPoint(prompt('a', 'bc')))
  const tenths = new Array<number>(10).fill(0)
  for (let i = 0; i < 20_000; i++) tenths[Math.floor(10 * splitPoint(text(`document ${i}`)))]!++
  for (const count of tenths) expect(Math.abs(count - 2000)).toBeLessThan(200)
})
