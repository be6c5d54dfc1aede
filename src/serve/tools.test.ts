import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createToolFilter, parseToolCalls } from './tools.ts'

const names = new Set(['weather', 'time'])
const call = { name: 'weather', arguments: '{"city":"Bonn"}' }

test.each([
  ['Hermes, Qwen', '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'],
  ['Mistral', '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bonn"}}]'],
  ['Llama 3.1', '{"name": "weather", "parameters": {"city": "Bonn"}}'],
  ['Llama 3.1 with its tag', '<|python_tag|>{"name": "weather", "parameters": {"city": "Bonn"}}'],
  ['arguments as text', '<tool_call>{"name":"weather","arguments":"{\\"city\\":\\"Bonn\\"}"}</tool_call>'],
])('%s', (_, text) => {
  expect(parseToolCalls(text, names)).toEqual([call])
})

test('several calls, and what is none', () => {
  const two = '<tool_call>{"name":"weather","arguments":{}}</tool_call>\n<tool_call>{"name":"time"}</tool_call>'
  expect(parseToolCalls(two, names).map(({ name }) => name)).toEqual(['weather', 'time'])
  for (const text of ['{"name":"other","arguments":{}}', '<tool_call>{"name"', '[1, 2]', '{}', 'weather', 'null'])
    expect(parseToolCalls(text, names)).toEqual([])
})

function run(text: string, sizes: number[]) {
  const filter = createToolFilter(names)
  let shown = ''
  for (let at = 0, i = 0; at < text.length; i++) {
    const size = sizes.length === 0 ? text.length : sizes[i % sizes.length]!
    shown += filter.push(text.slice(at, at + size))
    at += size
  }
  const { text: rest, calls } = filter.end()
  return { text: shown + rest, calls }
}

test('text comes through whole, wherever it is cut', () => {
  const piece = fc.constantFrom('a', ' ', '<', '<tool_call', '[TOOL', '{"x":1}', '\n', '[', '<|python')
  fc.assert(
    fc.property(fc.array(piece), fc.array(fc.integer({ min: 1, max: 5 })), (pieces, sizes) => {
      const text = pieces.join('')
      const { text: out, calls } = run(text, sizes)
      expect(calls).toEqual([])
      expect(out).toBe(text)
    }),
  )
})

test('a call behind a text is a call, wherever it is cut', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 }), (sizes) => {
      const text = 'Let me see.<tool_call>{"name":"weather","arguments":{"city":"Bonn"}}</tool_call>'
      expect(run(text, sizes)).toEqual({ text: 'Let me see.', calls: [call] })
    }),
  )
})
