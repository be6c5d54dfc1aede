// Function calls in the text of a model: finds where they begin and reads the usual formats. Knows no HTTP.
//
// Formats: `<tool_call>{...}</tool_call>` (Hermes, Qwen, SmolLM), `[TOOL_CALLS] [...]` (Mistral), `<|python_tag|>{...}` and a
// bare object (Llama 3.1). A call is {"name", "arguments"} or {"name", "parameters"}.

import { overlap } from '../text/stop-strings.ts'

export interface ToolCall {
  name: string
  /** JSON, as OpenAI's API gives it. */
  arguments: string
}

const MARKS = ['<tool_call>', '[TOOL_CALLS]', '<|python_tag|>']

/** Splits a growing text into what a client may see at once and what may be a call. */
export interface ToolFilter {
  push(text: string): string
  /** The calls, or the text that looked like one but is none. Only functions that were offered count as calls. */
  end(): { text: string; calls: ToolCall[] }
}

/** `forced`: the text is a call from its beginning on. */
export function createToolFilter(names: ReadonlySet<string>, forced = false): ToolFilter {
  let held = ''
  let begun = forced
  let seen = false

  return {
    push(text) {
      held += text
      if (begun) return ''
      const first = held.trimStart()
      // An answer that is an object as a whole may be a call; one inside a sentence is not.
      if (!seen && (first.startsWith('{') || first.startsWith('['))) {
        begun = true
        return ''
      }
      const starts = MARKS.map((mark) => held.indexOf(mark)).filter((index) => index !== -1)
      if (starts.length > 0) {
        begun = true
        const at = Math.min(...starts)
        const shown = held.slice(0, at)
        held = held.slice(at)
        // The line break before a call belongs to it.
        return shown.trim() === '' ? '' : shown
      }
      if (!seen && first === '') return ''
      const keep = Math.max(...MARKS.map((mark) => overlap(held, mark)))
      const shown = held.slice(0, held.length - keep)
      held = held.slice(held.length - keep)
      if (shown.trim() !== '') seen = true
      return shown
    },
    end() {
      const calls = begun ? parseToolCalls(held, names) : []
      return calls.length > 0 ? { text: '', calls } : { text: held, calls: [] }
    },
  }
}

/** Reads the calls in a text that begins with one; empty where it is none of the formats or names another function. */
export function parseToolCalls(text: string, names: ReadonlySet<string>): ToolCall[] {
  const trimmed = text.trim()
  const bodies = trimmed.startsWith('<tool_call>')
    ? trimmed.split('<tool_call>').map((part) => part.split('</tool_call>')[0]!)
    : [trimmed.replace(/^(\[TOOL_CALLS\]|<\|python_tag\|>)/, '')]
  const calls: ToolCall[] = []
  for (const body of bodies) {
    if (body.trim() === '') continue
    for (const value of [parseJson(body)].flat()) {
      const call = toCall(value, names)
      if (!call) return []
      calls.push(call)
    }
  }
  return calls
}

function toCall(value: unknown, names: ReadonlySet<string>): ToolCall | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { name, arguments: given, parameters } = value as Record<string, unknown>
  const chosen = given ?? parameters ?? {}
  if (typeof name !== 'string' || !names.has(name)) return undefined
  const parsed = typeof chosen === 'string' ? parseJson(chosen) : chosen
  if (typeof parsed !== 'object' || parsed === null) return undefined
  return { name, arguments: JSON.stringify(parsed) }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
