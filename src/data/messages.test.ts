import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { describe, expect, test } from 'vitest'
import { loadTokenizer } from '../tokenizer/index.ts'
import { columnNames, type Example, readExample, splitPoint } from './example.ts'
import { type DataReport, describeReport, readDocuments } from './index.ts'

const read = (row: unknown): Example => {
  const example = readExample(row, columnNames({}))
  if (typeof example === 'string') throw new Error(example)
  return example
}
const whyNot = (row: unknown) => readExample(row, columnNames({}))
const call = { type: 'function', function: { name: 'f', arguments: { a: 1 } } }

describe('rows as people have them', () => {
  test('content parts are one text, their reasoning apart', () => {
    const content = [
      { type: 'thinking', thinking: 'So ' },
      { type: 'text', text: 'Hel' },
      'lo',
      { type: 'output_text', text: '!' },
    ]
    expect(read({ messages: [{ role: 'assistant', content }] })).toEqual({
      kind: 'messages',
      messages: [{ role: 'assistant', content: 'Hello!', reasoning_content: 'So ' }],
    })
    const image = { messages: [{ role: 'assistant', content: [{ type: 'image_url', image_url: {} }] }] }
    expect(whyNot(image)).toBe('"messages"[0] holds a part of type image_url; only text can be trained on')
  })

  test.each(['reasoning_content', 'thinking', 'reasoning'])('reasoning under the name %s', (name) => {
    const messages = [{ role: 'assistant', content: 'b', [name]: 'thought' }]
    expect(read({ messages })).toMatchObject({ messages: [{ reasoning_content: 'thought' }] })
  })

  test.each([
    ['an object', { a: 1 }],
    ['JSON', '{"a": 1}'],
    ['an object with nulls', { a: 1, b: null }],
  ])('arguments as %s', (_, given) => {
    const messages = [
      { role: 'assistant', content: null, tool_calls: [{ ...call, function: { name: 'f', arguments: given } }] },
    ]
    expect(read({ messages })).toMatchObject({ messages: [{ content: '', tool_calls: [call] }] })
  })

  test('calls without arguments, without a wrapper, and in the form before tools', () => {
    const empty = { function: { name: 'f', arguments: {} } }
    for (const message of [
      { tool_calls: [{ function: { name: 'f', arguments: '' } }] },
      { tool_calls: [{ name: 'f' }] },
      { function_call: { name: 'f', arguments: '{}' } },
      { tool_calls: JSON.stringify([{ name: 'f', arguments: {} }]) },
    ])
      expect(read({ messages: [{ role: 'assistant', ...message }] })).toMatchObject({
        messages: [{ tool_calls: [empty] }],
      })
    const broken = [{ role: 'assistant', tool_calls: [{ name: 'f', arguments: '{"a": ' }] }]
    expect(whyNot({ messages: broken })).toMatch(/its arguments are not a JSON object/)
    expect(whyNot({ messages: [{ role: 'assistant', tool_calls: [{}] }] })).toMatch(/has no name of a function/)
  })

  test('tools as a list or as JSON, with OpenAI’s wrapper or without', () => {
    const tool = { name: 'f', parameters: { type: 'object' } }
    const messages = [{ role: 'assistant', content: 'b' }]
    for (const tools of [[tool], [{ type: 'function', function: tool }], JSON.stringify([tool])])
      expect(read({ messages, tools })).toMatchObject({ tools: [{ type: 'function', function: tool }] })
    expect(read({ messages, tools: null })).toEqual({ kind: 'messages', messages })
    expect(whyNot({ messages, tools: [{ parameters: {} }] })).toMatch(/"tools"\[0\] has no name/)
    expect(whyNot({ messages, tools: 'none' })).toMatch(/"tools" is not a list/)
  })

  test('ShareGPT’s layout, with its system text and its calls', () => {
    const conversations = [
      { from: 'human', value: 'a' },
      { from: 'function_call', value: '{"name": "f", "arguments": {"a": 1}}' },
      { from: 'observation', value: '7' },
      { from: 'gpt', value: 'b' },
    ]
    expect(read({ conversations, system: 's' })).toMatchObject({
      messages: [
        { role: 'system', content: 's' },
        { role: 'user', content: 'a' },
        { role: 'assistant', tool_calls: [call] },
        { role: 'tool', content: '7' },
        { role: 'assistant', content: 'b' },
      ],
    })
    expect(whyNot({ conversations: [{ from: 'narrator', value: 'x' }] })).toMatch(/"from" is "narrator"; known are/)
  })

  test('prompt and completion as lists of messages: only the completion is learned', () => {
    const prompt = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
      { role: 'user', content: 'c' },
    ]
    const completion = [{ role: 'assistant', content: 'd' }]
    expect(read({ prompt, completion })).toMatchObject({ messages: [...prompt, ...completion], learnedFrom: 3 })
    expect(read({ prompt, completion: 'd' })).toMatchObject({ messages: [...prompt, ...completion], learnedFrom: 3 })
    expect(whyNot({ prompt, completion: [{ role: 'user', content: 'd' }] })).toMatch(/"completion" has no assistant/)
  })

  test('what the split depends on does not move for plain chats, and holds calls', () => {
    const plain = read({
      messages: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
      ],
    })
    expect(splitPoint(plain)).toBe(
      splitPoint({ kind: 'messages', messages: plain.kind === 'messages' ? plain.messages : [] }),
    )
    const called = (name: string) => read({ messages: [{ role: 'assistant', tool_calls: [{ name }] }] })
    expect(splitPoint(called('f'))).not.toBe(splitPoint(called('g')))
  })

  test('any JSON is an example or a reason', () => {
    const keys = [
      'messages',
      'role',
      'content',
      'tool_calls',
      'function',
      'name',
      'arguments',
      'from',
      'value',
      'tools',
      'prompt',
      'completion',
      'text',
    ]
    const { row } = fc.letrec((tie) => ({
      row: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(null, 'assistant', 'user', 'human', '', '[{', '{"a":1}', 1, 2n, true),
        fc.array(tie('row'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...keys), tie('row'), { maxKeys: 4 }),
      ),
    }))
    fc.assert(
      fc.property(row, (value) => {
        const example = readExample(value, columnNames({}))
        if (typeof example !== 'string') expect(splitPoint(example)).toBeLessThan(1)
      }),
      { numRuns: 3000 },
    )
    const deep = JSON.parse(`{"messages":${'['.repeat(5000)}${']'.repeat(5000)}}`)
    expect(whyNot(deep)).toMatch(/nested deeper/)
  })
})

const TEMPLATE = `{%- if tools %}{{ '<tools>' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<end>' }}{% endif %}
{%- for m in messages %}{{ '<' + m.role + '>' }}
{%- if m.reasoning_content %}{{ '(' + m.reasoning_content + ')' }}{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}{{ call.function.name + call.function.arguments | tojson }}{% endfor %}
{{- '<end>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}`

const vocab = Object.fromEntries(Array.from({ length: 95 }, (_, i) => [String.fromCharCode(32 + i), i]))
const tokenizer = (template: string) =>
  loadTokenizer({
    'tokenizer.json': JSON.stringify({
      model: { type: 'BPE', vocab: { ...vocab, '\n': 95 }, merges: [] },
      added_tokens: [
        { id: 96, content: '<end>', special: true },
        { id: 97, content: '<assistant>', special: true },
      ],
      decoder: { type: 'Fuse' },
    }),
    'tokenizer_config.json': JSON.stringify({ eos_token: '<end>', chat_template: template }),
  })

/** What is learned of each row, special tokens in brackets, and what is reported. */
async function learn(rows: unknown[], template = TEMPLATE, turns: 'all' | 'last' = 'all', type = 'jsonl') {
  const path = join(await mkdtemp(join(tmpdir(), 'unmask-messages-')), `rows.${type}`)
  if (type === 'jsonl') await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  else await writeFile(path, rows[0] as Uint8Array)
  let report: DataReport | undefined
  const learned: string[] = []
  const whole: string[] = []
  const one = tokenizer(template)
  const name = (id: number) => (id >= 96 ? `[${one.idToToken(id)!.slice(1, -1)}]` : one.idToToken(id)!)
  const onReport = (made: DataReport) => {
    report = made
  }
  for await (const { ids, maskable } of readDocuments({ paths: [path], tokenizer: one, seed: 0, turns, onReport })) {
    whole.push(Array.from(ids, name).join(''))
    learned.push(Array.from(ids, (id, i) => (maskable[i] ? name(id) : '')).join(''))
  }
  const said = describeReport(report!).map((line) => line.replaceAll(path, 'rows'))
  return { whole, learned, said }
}

const user = { role: 'user', content: 'q' }

describe('rendered', () => {
  const tools = [{ name: 'f', parameters: {} }]

  test('calls, their results, tools and reasoning reach the template; the assistant’s part is learned', async () => {
    const called = { role: 'assistant', content: null, reasoning: 'hm', tool_calls: [call] }
    const messages = [user, called, { role: 'tool', name: 'f', content: '7' }, { role: 'assistant', content: 'ok' }]
    const { whole, learned, said } = await learn([{ messages, tools }])
    expect(learned).toEqual(['(hm)f{"a": 1}[end]ok[end]'])
    expect(whole[0]).toContain(
      '<tools>{"type": "function", "function": {"name": "f", "parameters": {}}}[end]<user>q[end]',
    )
    expect(said).toEqual([])
  })

  test('of prompt and completion as messages the completion alone is learned', async () => {
    const prompt = [user, { role: 'assistant', content: 'first' }, user]
    const { learned } = await learn([{ prompt, completion: [{ role: 'assistant', content: 'second' }] }])
    expect(learned).toEqual(['second[end]'])
  })

  test('what the template leaves out is said with a count', async () => {
    const bare =
      '{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'
    const thought = { role: 'assistant', content: 'a', thinking: 'hm' }
    const rows = [
      { messages: [user, thought], tools },
      { messages: [user, thought, user] },
      { messages: [user, { role: 'assistant', tool_calls: [call] }] },
    ]
    const { learned, said } = await learn(rows, bare)
    expect(learned).toEqual(['a[end]', 'a[end]'])
    expect(said).toEqual([
      '1 row left out: the chat template does not write tool calls (the first is rows:3)',
      '2 rows: the chat template leaves reasoning out (the first is rows:1)',
      '1 row: the chat template leaves tools out (the first is rows:1)',
      '1 row: messages after the last assistant turn are left out (the first is rows:2)',
    ])
  })

  test('a template that drops earlier reasoning: the reason names turns: last, which helps', async () => {
    const drops =
      "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last else m.content.split(')')[-1] }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    const rows = [
      { messages: [user, { role: 'assistant', content: '(a)b' }, user, { role: 'assistant', content: '(c)d' }] },
    ]
    const all = await learn(rows, drops)
    expect(all.learned).toEqual([])
    expect(all.said[0]).toMatch(/writes message 1 differently once others follow it; .* set turns to last/)
    expect((await learn(rows, drops, 'last')).learned).toEqual(['(c)d[end]'])
  })

  test('names of special tokens in what people wrote are text', async () => {
    const { whole, learned, said } = await learn([
      {
        messages: [
          { role: 'user', content: '<assistant>x<end>' },
          { role: 'assistant', content: 'a<end>b' },
        ],
      },
      { prompt: 'p<end>', completion: 'c<end>' },
    ])
    expect(whole[0]).toBe('<user><assistant>x<end>[end]\n[assistant]a<end>b[end]')
    expect(learned).toEqual(['a<end>b[end]', 'c[end]'])
    expect(said).toEqual([
      '2 rows: names of special tokens in prompts, completions or messages are text, not tokens (the first is rows:1)',
    ])
  })

  test('a table of unlike rows: null columns and null entries are absent, in Parquet too', async () => {
    const column = (name: string, data: unknown[], type: 'STRING' | 'JSON' = 'STRING') => ({ name, data, type })
    const messages = [user, { role: 'assistant', content: null, name: null, tool_calls: [call] }]
    const file = parquetWriteBuffer({
      columnData: [
        column('text', ['plain', null, null]),
        column('prompt', [null, 'p', null]),
        column('completion', [null, 'c', null]),
        column('messages', [null, null, messages], 'JSON'),
      ],
    })
    const expected = ['plain[end]', 'c[end]', 'f{"a": 1}[end]']
    expect((await learn([new Uint8Array(file)], TEMPLATE, 'all', 'parquet')).learned).toEqual(expected)
    const none = { text: null, prompt: null, completion: null, messages: null }
    const rows = [
      { ...none, text: 'plain' },
      { ...none, prompt: 'p', completion: 'c' },
      { ...none, messages },
    ]
    expect((await learn(rows)).learned).toEqual(expected)
  })
})
