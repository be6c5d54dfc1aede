// What was said so far, in the forms of both APIs, and as messages of a chat template. Knows no route.
import * as z from 'zod'
import { list } from '../formats/list.ts'
import type { ChatMessage } from '../tokenizer/types.ts'

const text = z.string()
const id = text.max(256)

const part = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.enum(['text', 'input_text', 'output_text', 'summary_text', 'reasoning_text']), text }),
    z.object({ type: z.literal('refusal'), refusal: text }),
  ],
  'only parts of text are understood',
)
const parts = list(part, { max: 4096 })
const content = z.union([text, parts], 'expected a text or a list of parts of text')
const name = id.nullish().describe('shown to the model where its chat template does so')
const args = text.nullish().describe('JSON; empty for none')

const toolCall = z.object({
  id,
  type: z.literal('function', 'only functions can be called'),
  function: z.object({ name: id, arguments: args }),
})

/** A message of /v1/chat/completions. */
export const message = z.discriminatedUnion(
  'role',
  [
    z.object({ role: z.enum(['system', 'developer', 'user']), content, name }),
    z.object({
      role: z.literal('assistant'),
      content: content.nullish(),
      refusal: text.nullish(),
      reasoning_content: text.nullish().describe('not part of the OpenAI API'),
      name,
      tool_calls: list(toolCall, { max: 128 }).nullish(),
      function_call: z.null('is not supported: use tool_calls').optional(),
      audio: z.null('is not supported: send the text').optional(),
    }),
    z.object({ role: z.literal('tool'), content, tool_call_id: id, name }),
  ],
  'expected system, developer, user, assistant or tool',
)

export type Message = z.output<typeof message>

/** An item of the input of /v1/responses, which takes back what it has given. */
export const inputItem = z.discriminatedUnion(
  'type',
  [
    z.object({
      type: z.literal('message').optional(),
      role: z.enum(['system', 'developer', 'user', 'assistant'], 'expected system, developer, user or assistant'),
      content,
    }),
    z.object({
      type: z.literal('reasoning'),
      summary: parts.nullish(),
      content: parts.nullish(),
    }),
    z.object({ type: z.literal('function_call'), call_id: id, name: id, arguments: args }),
    z.object({ type: z.literal('function_call_output'), call_id: id, output: content }),
    z
      .object({ type: z.literal('item_reference') })
      .refine(() => false, 'no items are stored here: send the item itself in place of a reference (store: false)')
      .describe('refused: nothing is stored between requests'),
  ],
  'expected an item of type message, reasoning, function_call or function_call_output',
)

export type InputItem = z.output<typeof inputItem>

type Content = z.output<typeof content>

/** The text of a content; its parts follow each other as they are. A refusal counts as what was said. */
export const textOf = (said: Content | null | undefined): string =>
  typeof said === 'string'
    ? said
    : (said ?? []).map((each) => (each.type === 'refusal' ? each.refusal : each.text)).join('')

const roleOf = (role: string): string => (role === 'developer' ? 'system' : role)

/** Arguments of a call as a value, which templates expect; the text where it is no JSON. */
function parseArguments(given: string | null | undefined): unknown {
  if (!given?.trim()) return {}
  try {
    return JSON.parse(given)
  } catch {
    return given
  }
}

const callOf = (callId: string, called: string, given: string | null | undefined) => ({
  id: callId,
  type: 'function' as const,
  function: { name: called, arguments: parseArguments(given) },
})

/** Messages as chat templates know them: text alone, arguments as values, `system` for what OpenAI calls `developer`. */
export const fromMessages = (messages: readonly Message[]): ChatMessage[] =>
  messages.map((given) => {
    const said: ChatMessage = { role: roleOf(given.role), content: textOf(given.content) }
    if (given.name) said.name = given.name
    if (given.role === 'tool') said.tool_call_id = given.tool_call_id
    if (given.role !== 'assistant') return said
    if (said.content === '' && given.refusal) said.content = given.refusal
    if (given.reasoning_content) said.reasoning_content = given.reasoning_content
    if (given.tool_calls?.length)
      said.tool_calls = given.tool_calls.map((call) => callOf(call.id, call.function.name, call.function.arguments))
    return said
  })

/** Items as messages: what an assistant says and does in a row is one turn. */
export function fromItems(items: readonly InputItem[]): ChatMessage[] {
  const messages: ChatMessage[] = []
  for (const item of items) {
    const said = fromItem(item)
    const last = messages.at(-1)
    if (!said) continue
    if (last?.role === 'assistant' && said.role === 'assistant') append(last, said)
    else messages.push(said)
  }
  return messages
}

/** Nothing for reasoning that cannot be read. */
function fromItem(item: InputItem): ChatMessage | undefined {
  switch (item.type) {
    case 'function_call':
      return { role: 'assistant', content: '', tool_calls: [callOf(item.call_id, item.name, item.arguments)] }
    case 'function_call_output':
      return { role: 'tool', content: textOf(item.output), tool_call_id: item.call_id }
    case 'reasoning': {
      const thought = textOf(item.content) || textOf(item.summary)
      return thought === '' ? undefined : { role: 'assistant', content: '', reasoning_content: thought }
    }
    case 'item_reference':
      return undefined
    default:
      return { role: roleOf(item.role), content: textOf(item.content) }
  }
}

function append(turn: ChatMessage, more: ChatMessage): void {
  turn.content = [turn.content, more.content].filter((words) => words !== '').join('\n')
  const thoughts = [turn.reasoning_content, more.reasoning_content].filter((words) => words !== undefined)
  if (thoughts.length > 0) turn.reasoning_content = thoughts.join('\n')
  if (more.tool_calls) turn.tool_calls = [...(turn.tool_calls ?? []), ...more.tool_calls]
}
