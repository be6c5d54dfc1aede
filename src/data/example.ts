// What a row says: a text, a prompt with its completion, or a chat. Knows nothing about tokens.
import type { ChatMessage, Tool } from '../tokenizer/types.ts'
import { readMessages, readTools, Unusable } from './messages.ts'

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
  | {
      kind: 'messages'
      messages: ChatMessage[]
      tools?: Tool[]
      /** Messages before this one are a prompt, assistant turns too. Default 0. */
      learnedFrom?: number
    }

/** Columns that are read beside those with names of their own. */
const BESIDE = {
  tools: 'tools',
  system: 'system',
  conversations: 'conversations',
  chosen: 'chosen',
  rejected: 'rejected',
}

/** The columns that may be read, most specific first. */
export function columnNames(columns: Columns): Required<Columns> {
  return { text: 'text', prompt: 'prompt', completion: 'completion', messages: 'messages', ...columns }
}

/** All columns that `readExample` looks into. */
export const columnsRead = (names: Required<Columns>): string[] => [
  ...new Set([...Object.values(names), ...Object.values(BESIDE)]),
]

/**
 * Reads a row: `messages` if it has them (or `conversations`), else `prompt` and `completion` (texts, or lists of
 * messages), else `text`. A column that is null is none. Returns the reason as a string where the row cannot be used.
 */
export function readExample(row: unknown, names: Required<Columns>): Example | string {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return 'the row is not a JSON object'
  const value = (name: string) =>
    Object.hasOwn(row, name) ? ((row as Record<string, unknown>)[name] ?? undefined) : undefined
  try {
    return readColumns(value, names) ?? whyUnusable(row, value, names)
  } catch (error) {
    if (error instanceof Unusable) return error.message
    throw error
  }
}

function readColumns(value: (name: string) => unknown, names: Required<Columns>): Example | undefined {
  const chat = [names.messages, BESIDE.conversations].find((name) => value(name) !== undefined)
  if (chat !== undefined) return toChat(readMessages(value(chat), chat), 0, chat, value)
  const prompt = value(names.prompt)
  const completion = value(names.completion)
  if (prompt !== undefined && completion !== undefined) {
    if (typeof prompt !== 'string' || typeof completion !== 'string') {
      const asked = toMessages(prompt, 'user', names.prompt)
      const answered = toMessages(completion, 'assistant', names.completion)
      return toChat([...asked, ...answered], asked.length, names.completion, value)
    }
    if (completion === '') throw new Unusable(`"${names.completion}" is empty`)
    return { kind: 'prompt', prompt, completion }
  }
  const text = value(names.text)
  if (text === undefined) return undefined
  if (typeof text !== 'string') throw new Unusable(`"${names.text}" is not a text`)
  if (text === '') throw new Unusable(`"${names.text}" is empty`)
  return { kind: 'text', text }
}

/** A list of messages, or a text as the one message of a role. Throws Unusable. */
export const toMessages = (value: unknown, role: string, name: string): ChatMessage[] => {
  if (typeof value === 'string') return [{ role, content: value }]
  if (!Array.isArray(value)) throw new Unusable(`"${name}" is neither a text nor a list of messages`)
  return readMessages(value, name)
}

function toChat(messages: ChatMessage[], learnedFrom: number, name: string, value: (name: string) => unknown): Example {
  const system = value(BESIDE.system)
  const prepended = typeof system === 'string' && system !== '' && messages[0]?.role !== 'system'
  if (prepended) messages.unshift({ role: 'system', content: system })
  const from = prepended && learnedFrom > 0 ? learnedFrom + 1 : learnedFrom
  if (!messages.slice(from).some((message) => message.role === 'assistant'))
    throw new Unusable(`"${name}" has no assistant turn`)
  const tools = value(BESIDE.tools)
  return {
    kind: 'messages',
    messages,
    ...(from > 0 ? { learnedFrom: from } : {}),
    ...(tools === undefined ? {} : { tools: readTools(tools, BESIDE.tools) }),
  }
}

function whyUnusable(row: object, value: (name: string) => unknown, names: Required<Columns>): string {
  if (value(BESIDE.chosen) !== undefined && value(BESIDE.rejected) !== undefined)
    return (
      '"chosen" and "rejected" are pairs for training on preferences (unmask dpo); to train on the chosen answers, ' +
      'name that column as the completion, or as the messages where it holds whole chats'
    )
  return (
    `no "${names.messages}", no "${names.prompt}" with "${names.completion}" and no "${names.text}"; ` +
    `the row has ${Object.keys(row).slice(0, 20).join(', ') || 'nothing'}; name its columns with --columns-text, --columns-prompt and --columns-completion, or --columns-messages`
  )
}

/** A number in [0, 1) that depends on the example's text alone: the side of the held-out split. */
export const splitPoint = (example: Example): number => pointOf(textsOf(example))

/**
 * A number in [0, 1) that depends on the texts alone. FNV-1a over UTF-16 code units with the final mix of MurmurHash3, since
 * the high bits of FNV-1a alone move little.
 */
export function pointOf(texts: readonly string[]): number {
  let hash = 0x811c9dc5
  for (const text of texts) {
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    hash = Math.imul(hash ^ 0x1ffff, 0x01000193) // no code unit: keeps ("ab", "c") apart from ("a", "bc")
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) * 2 ** -32
}

/** What an example says, as texts. */
export function textsOf(example: Example): string[] {
  if (example.kind === 'text') return [example.text]
  if (example.kind === 'prompt') return [example.prompt, example.completion]
  const tools = example.tools?.length ? [JSON.stringify(example.tools)] : []
  return [
    ...example.messages.flatMap(({ role, content, ...rest }) =>
      Object.keys(rest).length === 0 ? [role, content] : [role, content, JSON.stringify(rest)],
    ),
    ...tools,
  ]
}
