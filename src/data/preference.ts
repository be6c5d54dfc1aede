// What a row with a chosen and a rejected answer says, in the formats of TRL. Knows nothing about tokens.
import { isDeepStrictEqual } from 'node:util'
import type { ChatMessage, Tool } from '../tokenizer/types.ts'
import { type Example, textsOf, toMessages } from './example.ts'
import { readTools, Unusable } from './messages.ts'

/** Names of the columns in the rows, where they are not called `prompt`, `chosen` and `rejected`. */
export interface PreferenceColumns {
  prompt?: string
  chosen?: string
  rejected?: string
}

/** Two answers to one prompt. */
export interface Preference {
  chosen: Example
  rejected: Example
  /** What the prompt says, as texts. */
  prompt: string[]
}

const TOOLS = 'tools'

export const preferenceColumns = (columns: PreferenceColumns): Required<PreferenceColumns> => ({
  ...{ prompt: 'prompt', chosen: 'chosen', rejected: 'rejected' },
  ...columns,
})

/** All columns that `readPreference` looks into. */
export const preferenceColumnsRead = (names: Required<PreferenceColumns>): string[] => [...Object.values(names), TOOLS]

/**
 * Reads a row with `chosen` and `rejected`:
 *
 * - texts with a `prompt` that is a text; without one, the prompt is what both texts begin with, up to a white space;
 * - lists of messages, behind those of `prompt` (a list, or a text as the user's message), which they may repeat; without
 *   `prompt`, the prompt is the messages with which both lists begin. What follows it begins with an assistant's turn.
 *
 * Returns the reason as a string where the row cannot be used.
 */
export function readPreference(row: unknown, names: Required<PreferenceColumns>): Preference | string {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return 'the row is not a JSON object'
  const value = (name: string) =>
    Object.hasOwn(row, name) ? ((row as Record<string, unknown>)[name] ?? undefined) : undefined
  try {
    const [prompt, chosen, rejected] = [value(names.prompt), value(names.chosen), value(names.rejected)]
    const missing = [names.chosen, names.rejected].filter((name) => value(name) === undefined)
    if (missing.length > 0)
      return (
        `no ${missing.map((name) => `"${name}"`).join(' and no ')}; the row has ` +
        `${Object.keys(row).slice(0, 20).join(', ') || 'nothing'}; name its columns with --columns-prompt, ` +
        '--columns-chosen and --columns-rejected'
      )
    if (typeof chosen === 'string' && typeof rejected === 'string' && !Array.isArray(prompt))
      return ofTexts(prompt, chosen, rejected, names)
    const tools = value(TOOLS)
    return ofMessages(prompt, chosen, rejected, names, tools === undefined ? undefined : readTools(tools, TOOLS))
  } catch (error) {
    if (error instanceof Unusable) return error.message
    throw error
  }
}

function ofTexts(prompt: unknown, chosen: string, rejected: string, names: Required<PreferenceColumns>): Preference {
  if (prompt !== undefined && typeof prompt !== 'string') throw new Unusable(`"${names.prompt}" is not a text`)
  const start = prompt ?? commonStart(chosen, rejected)
  const rest = (text: string) => (prompt === undefined ? text.slice(start.length) : text)
  const example = (text: string, name: string): Example => {
    if (rest(text) === '')
      throw new Unusable(`"${name}" is empty${prompt === undefined ? ' behind what both begin with' : ''}`)
    return { kind: 'prompt', prompt: start, completion: rest(text) }
  }
  return differing(
    { chosen: example(chosen, names.chosen), rejected: example(rejected, names.rejected), prompt: [start] },
    names,
  )
}

/** What both texts begin with, up to the last white space that a word follows. */
function commonStart(a: string, b: string): string {
  let end = 0
  while (end < Math.min(a.length, b.length) && a[end] === b[end]) end++
  const start = a.slice(0, end)
  if (end === 0)
    throw new Unusable('the prompts differ: the two texts have no beginning in common, and there is no prompt')
  // A word that both begin with, and end differently, is part of the answers.
  return start.slice(0, start.search(/\s?\S*$/)) || start
}

function ofMessages(
  prompt: unknown,
  chosen: unknown,
  rejected: unknown,
  names: Required<PreferenceColumns>,
  tools: Tool[] | undefined,
): Preference {
  const asked = prompt === undefined ? [] : toMessages(prompt, 'user', names.prompt)
  const startsAs = (messages: readonly ChatMessage[]) =>
    asked.every((message, i) => isDeepStrictEqual(message, messages[i]))
  const whole = (value: unknown, name: string): ChatMessage[] => {
    const messages = toMessages(value, 'assistant', name)
    if (asked.length === 0 || startsAs(messages)) return messages
    if (messages[0]?.role === 'assistant') return [...asked, ...messages]
    // A text is the last message of the prompt; what stands before it stands in the lists alone.
    const last = messages.findIndex((message) => message.role === 'user' && message.content === prompt)
    if (typeof prompt === 'string' && last !== -1) return messages
    throw new Unusable(`the prompts differ: "${name}" begins with another message than "${names.prompt}"`)
  }
  const [a, b] = [whole(chosen, names.chosen), whole(rejected, names.rejected)]
  let shared = 0
  while (shared < Math.min(a.length, b.length) && isDeepStrictEqual(a[shared], b[shared])) shared++
  const answer = (messages: ChatMessage[], name: string): Example => {
    const first = messages[shared]
    if (first === undefined) throw new Unusable(`"${name}" has no answer behind the prompt`)
    if (first.role !== 'assistant')
      throw new Unusable(
        `the prompts differ: message ${shared} of "${names.chosen}" and "${names.rejected}" is not the same, and that of ` +
          `"${name}" is the ${first.role}'s`,
      )
    return {
      kind: 'messages',
      messages,
      ...(shared > 0 ? { learnedFrom: shared } : {}),
      tools,
    }
  }
  const examples =
    a.length === b.length && shared === a.length
      ? undefined
      : { chosen: answer(a, names.chosen), rejected: answer(b, names.rejected) }
  if (!examples) throw new Unusable(sameAnswers(names))
  return { ...examples, prompt: textsOf({ kind: 'messages', messages: a.slice(0, shared) }) }
}

const sameAnswers = ({ chosen, rejected }: Required<PreferenceColumns>): string =>
  `"${chosen}" and "${rejected}" are the same`

function differing(preference: Preference, names: Required<PreferenceColumns>): Preference {
  if (isDeepStrictEqual(preference.chosen, preference.rejected)) throw new Unusable(sameAnswers(names))
  return preference
}
