// What a row says: a text, a prompt with its completion, or a chat. Knows nothing about tokens.
import type { ChatMessage } from '../tokenizer/types.ts'

/** Names of the columns in the rows, where they are not called `text`, `prompt`, `completion`, `messages`. */
export interface Columns {
  text?: string
  prompt?: string
  completion?: string
  messages?: string
}

export type Example =
  | { kind: 'text'; text: string }
  | { kind: 'prompt'; prompt: string; completion: string }
  | { kind: 'messages'; messages: ChatMessage[] }

/** The columns that may be read, most specific first. */
export function columnNames(columns: Columns): Required<Columns> {
  return { text: 'text', prompt: 'prompt', completion: 'completion', messages: 'messages', ...columns }
}

/**
 * Reads a row: `messages` if it has them, else `prompt` and `completion`, else `text`. Returns the reason as a string
 * where the row cannot be used.
 */
export function readExample(row: unknown, names: Required<Columns>): Example | string {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return 'the row is not a JSON object'
  const value = (name: string) => (Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : undefined)
  const messages = value(names.messages)
  if (messages !== undefined && messages !== null) return readMessages(messages, names.messages)
  const prompt = value(names.prompt)
  const completion = value(names.completion)
  if (prompt !== undefined && completion !== undefined) {
    if (typeof prompt !== 'string') return `"${names.prompt}" is not a text`
    if (typeof completion !== 'string') return `"${names.completion}" is not a text`
    if (completion === '') return `"${names.completion}" is empty`
    return { kind: 'prompt', prompt, completion }
  }
  const text = value(names.text)
  if (text === undefined) {
    return (
      `no "${names.messages}", no "${names.prompt}" with "${names.completion}" and no "${names.text}"; ` +
      `the row has ${Object.keys(row).slice(0, 20).join(', ') || 'nothing'}; name its columns with the columns option`
    )
  }
  if (typeof text !== 'string') return `"${names.text}" is not a text`
  if (text === '') return `"${names.text}" is empty`
  return { kind: 'text', text }
}

function readMessages(value: unknown, name: string): Example | string {
  if (!Array.isArray(value)) return `"${name}" is not a list`
  const messages: ChatMessage[] = []
  for (const [index, message] of value.entries()) {
    if (typeof message?.role !== 'string' || typeof message.content !== 'string') {
      return `"${name}"[${index}] needs a "role" and a "content", both texts`
    }
    messages.push({ role: message.role, content: message.content })
  }
  if (!messages.some((message) => message.role === 'assistant')) return `"${name}" has no assistant turn`
  return { kind: 'messages', messages }
}

/**
 * A number in [0, 1) that depends on the example's text alone: the side of the held-out split. FNV-1a over UTF-16 code
 * units with the final mix of MurmurHash3, since the high bits of FNV-1a alone move little.
 */
export function splitPoint(example: Example): number {
  let hash = 0x811c9dc5
  for (const text of texts(example)) {
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    hash = Math.imul(hash ^ 0x1ffff, 0x01000193) // no code unit: keeps ("ab", "c") apart from ("a", "bc")
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) * 2 ** -32
}

function texts(example: Example): string[] {
  if (example.kind === 'text') return [example.text]
  if (example.kind === 'prompt') return [example.prompt, example.completion]
  return example.messages.flatMap((message) => [message.role, message.content])
}
