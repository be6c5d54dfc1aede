// Chats and tools in the shapes that data sets have, as messages that templates know. Knows nothing about tokens.
import type { ChatMessage, Tool } from '../tokenizer/types.ts'

/** What keeps a row from being used. */
export class Unusable extends Error {}

type Json = Record<string, unknown>

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Deeper values than this are hostile. */
const MAX_DEPTH = 64

/**
 * A value without the null entries of its objects, which tables put where a row has no such entry, and with numbers and
 * dates as JSON has them.
 */
function withoutNulls(value: unknown, what: string, depth = 0): unknown {
  if (depth > MAX_DEPTH) throw new Unusable(`${what} is nested deeper than ${MAX_DEPTH} levels`)
  if (typeof value === 'bigint') return Number(value)
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map((item) => withoutNulls(item, what, depth + 1))
  if (!isObject(value)) return value
  const entries = Object.entries(value).filter(([, entry]) => entry !== null && entry !== undefined)
  return Object.fromEntries(entries.map(([key, entry]) => [key, withoutNulls(entry, what, depth + 1)]))
}

/** A list, also one that is written as JSON in a text. */
function readList(value: unknown, name: string): unknown[] {
  const list = withoutNulls(parseJson(value), `"${name}"`)
  if (!Array.isArray(list)) throw new Unusable(`"${name}" is not a list`)
  return list
}

/** A text that holds a JSON list or object as that; anything else as it is. */
function parseJson(value: unknown): unknown {
  if (typeof value !== 'string' || !/^\s*[[{]/.test(value)) return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

/** The names that ShareGPT's layout (`from`, `value`) has for roles. */
const SHAREGPT_ROLES: Readonly<Record<string, string>> = {
  ...{ system: 'system', human: 'user', user: 'user', gpt: 'assistant', chatgpt: 'assistant', assistant: 'assistant' },
  ...{ function_call: 'assistant', observation: 'tool', function_response: 'tool', tool: 'tool' },
}

/**
 * Messages of a row: `role` and `content`, or ShareGPT's `from` and `value`. Content is a text or a list of text parts;
 * what else a message has (tool calls, reasoning, names) is kept for the template. Throws Unusable with the reason.
 */
export function readMessages(value: unknown, name: string): ChatMessage[] {
  return readList(value, name).map((message, i) => readMessage(message, `"${name}"[${i}]`))
}

function readMessage(value: unknown, where: string): ChatMessage {
  if (!isObject(value)) throw new Unusable(`${where} is not an object`)
  const message = value.role === undefined && value.from !== undefined ? fromShareGpt(value, where) : { ...value }
  if (typeof message.role !== 'string') throw new Unusable(`${where} needs a "role"`)
  const calls = readCalls(message, where)
  delete message.tool_calls
  delete message.function_call
  const { text, reasoning: ofParts } = readContent(message.content, where)
  const reasonings = [message.reasoning_content, message.thinking, message.reasoning, ofParts]
  const reasoning = reasonings.find((one) => typeof one === 'string' && one !== '')
  if (message.content === undefined && calls.length === 0)
    throw new Unusable(`${where} has no "content" and no "tool_calls"`)
  return {
    ...message,
    // OpenAI's name for it before there were tools.
    role: message.role === 'function' ? 'tool' : message.role,
    content: text,
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning as string }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  }
}

function fromShareGpt({ from, value, ...rest }: Json, where: string): Json {
  const role = typeof from === 'string' ? SHAREGPT_ROLES[from] : undefined
  if (role === undefined)
    throw new Unusable(
      `${where}: "from" is ${JSON.stringify(from)}; known are ${Object.keys(SHAREGPT_ROLES).join(', ')}`,
    )
  if (from !== 'function_call') return { ...rest, role, content: value }
  const calls = parseJson(value)
  return { ...rest, role, tool_calls: Array.isArray(calls) ? calls : [calls] }
}

/** A content as one text, and the reasoning among its parts. */
function readContent(content: unknown, where: string): { text: string; reasoning: string } {
  if (content === undefined) return { text: '', reasoning: '' }
  if (typeof content === 'string') return { text: content, reasoning: '' }
  if (!Array.isArray(content)) throw new Unusable(`${where}: "content" is neither a text nor a list of parts`)
  let text = ''
  let reasoning = ''
  for (const part of content) {
    if (typeof part === 'string') text += part
    else if (isObject(part) && typeof part.text === 'string') text += part.text
    else if (isObject(part) && typeof part.refusal === 'string') text += part.refusal
    else if (isObject(part) && typeof part.thinking === 'string') reasoning += part.thinking
    else {
      const type = isObject(part) && typeof part.type === 'string' ? part.type : 'unknown'
      throw new Unusable(`${where} holds a part of type ${type}; only text can be trained on`)
    }
  }
  return { text, reasoning }
}

type ToolCall = NonNullable<ChatMessage['tool_calls']>[number]

/** `tool_calls`, or OpenAI's earlier `function_call`; arguments as an object, also where they are JSON in a text. */
function readCalls(message: Json, where: string): ToolCall[] {
  const list = message.function_call === undefined ? (message.tool_calls ?? []) : [message.function_call]
  return readList(list, 'tool_calls').map((call, i) => {
    const at = `${where}.tool_calls[${i}]`
    const named = isObject(call) && isObject(call.function) ? call.function : call
    if (!isObject(call) || !isObject(named) || typeof named.name !== 'string')
      throw new Unusable(`${at} has no name of a function`)
    const given = named.arguments ?? named.parameters ?? {}
    const parsed = given === '' ? {} : parseJson(given)
    if (!isObject(parsed)) throw new Unusable(`${at}: its arguments are not a JSON object`)
    const id = typeof call.id === 'string' ? { id: call.id } : {}
    return { ...id, type: 'function', function: { name: named.name, arguments: parsed } }
  })
}

/** The tools of a row: a list, also as JSON in a text, of functions in OpenAI's shape or without its wrapper. */
export function readTools(value: unknown, name: string): Tool[] {
  return readList(value === '' ? [] : value, name).map((tool, i) => {
    const definition = isObject(tool) && isObject(tool.function) ? tool.function : tool
    if (!isObject(definition) || typeof definition.name !== 'string')
      throw new Unusable(`"${name}"[${i}] has no name of a function`)
    return { type: 'function', function: definition as Tool['function'] }
  })
}
