import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { fromItems, fromMessages, inputItem, message } from './messages.ts'

const messages = (...given: unknown[]) => fromMessages(z.array(message).parse(given))
const items = (...given: unknown[]) => fromItems(z.array(inputItem).parse(given))
const problem = (given: unknown) => inputItem.safeParse(given).error?.issues[0]?.message

const call = (id: string, name: string, given?: string) => ({
  type: 'function_call',
  call_id: id,
  name,
  arguments: given,
})
const called = (id: string, name: string, given: unknown) => ({
  id,
  type: 'function',
  function: { name, arguments: given },
})

describe('messages of a chat', () => {
  test('roles, names and parts', () => {
    expect(
      messages(
        { role: 'developer', content: 'a' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'b' },
            { type: 'input_text', text: 'c' },
          ],
          name: 'Ann',
        },
        { role: 'tool', tool_call_id: 'x', content: [{ type: 'text', text: 'd' }] },
      ),
    ).toEqual([
      { role: 'system', content: 'a' },
      { role: 'user', content: 'bc', name: 'Ann' },
      { role: 'tool', content: 'd', tool_call_id: 'x' },
    ])
  })

  test('an assistant: refusals, reasoning, calls without arguments', () => {
    const refusal = { type: 'refusal', refusal: 'No.' }
    expect(
      messages(
        { role: 'assistant', content: [refusal] },
        { role: 'assistant', content: null, refusal: 'No.' },
        { role: 'assistant', content: 'a', reasoning_content: 'b', refusal: null },
        {
          role: 'assistant',
          content: null,
          tool_calls: ['', ' ', '{"a":1}', '{'].map((given, i) => called(String(i), 'f', given)),
        },
      ),
    ).toEqual([
      { role: 'assistant', content: 'No.' },
      { role: 'assistant', content: 'No.' },
      { role: 'assistant', content: 'a', reasoning_content: 'b' },
      {
        role: 'assistant',
        content: '',
        tool_calls: [{}, {}, { a: 1 }, '{'].map((given, i) => called(String(i), 'f', given)),
      },
    ])
  })
})

describe('items of a response', () => {
  test('what an assistant says and does in a row is one turn', () => {
    expect(
      items(
        { role: 'user', content: 'Paris and Rome?' },
        { type: 'reasoning', id: 'r', summary: [], content: [{ type: 'reasoning_text', text: 'Hm.' }] },
        { type: 'reasoning', id: 'r', summary: [], encrypted_content: 'xyz' },
        {
          type: 'message',
          role: 'assistant',
          id: 'm',
          content: [{ type: 'output_text', text: 'I look.', annotations: [] }],
        },
        call('1', 'weather', '{"city":"Paris"}'),
        call('2', 'now', ''),
        { type: 'function_call_output', call_id: '1', output: '18' },
        { type: 'function_call_output', call_id: '2', output: [{ type: 'input_text', text: '12:00' }] },
        { role: 'assistant', content: [{ type: 'refusal', refusal: 'No.' }] },
        { role: 'assistant', content: 'Yes.' },
        { role: 'developer', content: 'Brief.' },
      ),
    ).toEqual([
      { role: 'user', content: 'Paris and Rome?' },
      {
        role: 'assistant',
        content: 'I look.',
        reasoning_content: 'Hm.',
        tool_calls: [called('1', 'weather', { city: 'Paris' }), called('2', 'now', {})],
      },
      { role: 'tool', tool_call_id: '1', content: '18' },
      { role: 'tool', tool_call_id: '2', content: '12:00' },
      { role: 'assistant', content: 'No.\nYes.' },
      { role: 'system', content: 'Brief.' },
    ])
  })

  test('reasoning that cannot be read is no turn', () => {
    expect(items({ type: 'reasoning', id: 'r', summary: [] }, { role: 'user', content: 'a' })).toEqual([
      { role: 'user', content: 'a' },
    ])
  })

  test('what is refused says what to send', () => {
    expect(problem({ type: 'item_reference', id: 'msg_1' })).toContain('send the item itself')
    expect(problem({ type: 'web_search_call', id: 'x' })).toContain('expected an item of type message')
    expect(problem({ role: 'critic', content: 'a' })).toContain('expected system, developer, user or assistant')
    const image = { role: 'user', content: [{ type: 'input_image', image_url: 'data:' }] }
    expect(JSON.stringify(inputItem.safeParse(image).error?.issues)).toContain('only parts of text')
  })
})
