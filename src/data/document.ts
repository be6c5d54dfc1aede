// From an example to token ids: rendering, which tokens may be masked, the closing EOS, and the cut into pieces that
// fit a row. Knows nothing about files or batches.

import { UserError } from '../core/types.ts'
import type { ChatMessage, Tokenizer, Tool } from '../tokenizer/types.ts'
import { type Example, textsOf } from './example.ts'
import type { Document } from './types.ts'

export interface RenderOptions {
  /** How prompts are written; `chat` where the tokenizer has a chat template, else `plain`. */
  template: 'chat' | 'plain'
  /** Between prompt and completion under `plain`. */
  separator: string
  /** Which assistant turns of a chat may be masked. */
  turns: 'all' | 'last'
}

interface Segment {
  text: string
  maskable: boolean
}

/** What to say of an example that is used, but not as a whole. */
export type Note = (what: string) => void

/**
 * Tokenises an example as one text, so that ids do not depend on what is learned of it; no token stands across the places
 * where a prompt ends, as at generation. Names of special tokens in prompts, completions and messages are text; in a plain
 * text they are tokens. A text begins with BOS where the tokenizer puts one; it is not maskable. Returns the reason as a
 * string where the example cannot be rendered; `note` hears what of it is left out.
 */
export function toDocument(
  id: string,
  example: Example,
  tokenizer: Tokenizer,
  options: RenderOptions,
  note: Note = () => {},
): Document | string {
  const segments = toSegments(example, tokenizer, options, note)
  if (typeof segments === 'string') return segments
  const isPlain = options.template === 'plain' || example.kind === 'text'
  const special = example.kind === 'text' ? 'tokens' : isPlain ? 'text' : 'guarded'
  const eos = eosId(tokenizer)
  const ids: number[] = isPlain ? leadingBos(tokenizer) : []
  const maskable: number[] = ids.map(() => 0)
  const encoded = tokenizer.encodeParts(
    segments.map(({ text }) => text),
    { special },
  )
  for (const [i, part] of encoded.entries()) {
    for (const token of part) {
      ids.push(token)
      maskable.push(segments[i].maskable ? 1 : 0)
    }
  }
  if (ids.at(-1) !== eos) {
    ids.push(eos)
    maskable.push(1)
  }
  return { id, ids: Int32Array.from(ids), maskable: Uint8Array.from(maskable) }
}

export interface PromptOptions extends Pick<RenderOptions, 'template' | 'separator'> {
  /** Functions that the model may call, for the chat template. */
  tools?: readonly Tool[] | undefined
  /** Text with which the answer to a chat begins; names of special tokens in it are tokens. */
  answer?: string
  /** What names of special tokens in a plain prompt are. Default `text`. */
  special?: 'text' | 'tokens'
}

/**
 * The ids of a prompt exactly as training saw it: what generation and evaluation start from. Names of special tokens in it are
 * text; those of the chat template are tokens.
 */
export function encodePrompt(
  prompt: string | readonly ChatMessage[],
  tokenizer: Tokenizer,
  options: PromptOptions,
): number[] {
  const { tools, answer = '', special = 'text' } = options
  if (options.template === 'chat') {
    const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
    const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, tools, guard: true })
    return tokenizer.encode(text + answer, { special: 'guarded' })
  }
  if (typeof prompt !== 'string') throw new UserError('a chat needs the chat template; the template is set to plain')
  return [...leadingBos(tokenizer), ...tokenizer.encode(prompt + options.separator, { special })]
}

/** The id that closes documents and pads them. */
export function eosId(tokenizer: Tokenizer): number {
  if (tokenizer.eosTokenId === undefined) {
    throw new UserError('the tokenizer has no EOS token; name one as eos_token in tokenizer_config.json')
  }
  return tokenizer.eosTokenId
}

function leadingBos(tokenizer: Tokenizer): number[] {
  const first = tokenizer.encode('', { addSpecialTokens: true })[0]
  return first !== undefined && first === tokenizer.bosTokenId ? [first] : []
}

function toSegments(example: Example, tokenizer: Tokenizer, options: RenderOptions, note: Note): Segment[] | string {
  if (example.kind === 'text') return [{ text: example.text, maskable: true }]
  const noteSpelled = (...texts: string[]) => {
    if (texts.some((text) => tokenizer.guard(text) !== text))
      note('names of special tokens in prompts, completions or messages are text, not tokens')
  }
  if (example.kind === 'prompt') {
    const { prompt } = example
    // Rows are often written with the token that ends them.
    const end = tokenizer.idToToken(eosId(tokenizer))!
    const completion = example.completion.endsWith(end) ? example.completion.slice(0, -end.length) : example.completion
    noteSpelled(prompt, completion)
    if (options.template === 'plain') {
      return [
        { text: prompt + options.separator, maskable: false },
        { text: completion, maskable: true },
      ]
    }
    const messages = [
      { role: 'user', content: prompt },
      { role: 'assistant', content: completion },
    ]
    return chatSegments({ kind: 'messages', messages }, tokenizer, options, note)
  }
  if (options.template === 'plain') {
    throw new UserError(
      'rows with messages need a chat template: set template to chat (--template chat), or give the tokenizer one',
    )
  }
  noteSpelled(...textsOf(example))
  return chatSegments(example, tokenizer, options, note)
}

type Chat = Extract<Example, { kind: 'messages' }>

/**
 * A chat as alternating segments. An assistant turn begins where the generation prompt ends and lasts through the mark
 * that ends the turn; what follows the last assistant turn is left out.
 */
function chatSegments(
  { messages, tools, learnedFrom = 0 }: Chat,
  tokenizer: Tokenizer,
  options: RenderOptions,
  note: Note,
): Segment[] | string {
  const last = messages.findLastIndex((message) => message.role === 'assistant')
  const used = messages.slice(0, last + 1)
  const render = (count: number, addGenerationPrompt: boolean) =>
    tokenizer.applyChatTemplate(used.slice(0, count), { addGenerationPrompt, tools, guard: true })
  try {
    const full = render(used.length, false)
    const segments: Segment[] = []
    let done = 0
    for (const [index, message] of used.entries()) {
      if (message.role !== 'assistant' || index < learnedFrom || (options.turns === 'last' && index !== last)) continue
      const before = render(index, true)
      const through = index === last ? full : render(index + 1, false)
      const span = turnSpan({ full, before, through }, message, tokenizer)
      if (span === undefined || span.start < done) {
        const followed = index !== last && through.startsWith(before)
        return followed
          ? `the chat template writes message ${index} differently once others follow it; to train on the last answer ` +
              'of such rows, set turns to last'
          : `the chat template rewrites message ${index}, so the answer cannot be separated from its prompt`
      }
      const turn = full.slice(span.start, span.end)
      const missing = message.tool_calls?.find((call) => !turn.includes(tokenizer.guard(call.function.name)))
      if (missing) return 'the chat template does not write tool calls'
      const reasoning = message.reasoning_content?.trim()
      if (reasoning && !turn.includes(tokenizer.guard(reasoning))) note('the chat template leaves reasoning out')
      segments.push({ text: full.slice(done, span.start), maskable: false })
      segments.push({ text: turn, maskable: true })
      done = span.end
    }
    if (tools?.some((tool) => !full.includes(tokenizer.guard(tool.function.name))))
      note('the chat template leaves tools out')
    if (used.length < messages.length) note('messages after the last assistant turn are left out')
    return segments
  } catch (error) {
    if (error instanceof UserError && tokenizer.chatTemplate !== undefined) return error.message
    throw error
  }
}

const withoutSpace = (text: string): string => text.replace(/\s+/g, '')

/** Where a turn stands in the whole chat; undefined where it cannot be separated from its prompt. */
function turnSpan(
  { full, before, through }: { full: string; before: string; through: string },
  message: ChatMessage,
  tokenizer: Tokenizer,
): { start: number; end: number } | undefined {
  if (!full.startsWith(before)) return undefined
  const start = before.length
  const content = tokenizer.guard(message.content.trim())
  const at = full.indexOf(content, start)
  const eos = tokenizer.idToToken(eosId(tokenizer))!
  if (full.startsWith(through)) {
    const turn = through.slice(start)
    // Templates may write white space in it otherwise, such as around reasoning.
    if (turn === '' || !withoutSpace(turn).includes(withoutSpace(content))) return undefined
    // What a template writes behind the token that ends the turn is not the model's to write.
    const eosAt = at === -1 ? through.lastIndexOf(eos) : through.indexOf(eos, at + content.length)
    return { start, end: eosAt >= start ? eosAt + eos.length : through.length }
  }
  // Some templates write a turn differently once others follow it. What is sure to be there is then an answer alone.
  if (at === -1 || content === '' || message.tool_calls || message.reasoning_content) return undefined
  const contentEnd = at + content.length
  const eosAt = full.indexOf(eos, contentEnd)
  const isClosed = eosAt !== -1 && full.slice(contentEnd, eosAt).trim() === ''
  return { start, end: isClosed ? eosAt + eos.length : contentEnd }
}

/** A part of a document that fits a row. */
export interface Piece {
  /** The document's id, with the offset of its first token where that is not 0. */
  id: string
  ids: Int32Array
  maskable: Uint8Array
}

/**
 * Cuts a document into pieces of at most `length` tokens; pieces in which nothing may be masked, and an EOS left alone,
 * are dropped. A document with a prompt is truncated instead, because a completion means nothing without its prompt.
 */
export function cut(document: Document, length: number, hasPrompt: boolean): Piece[] {
  const pieces: Piece[] = []
  const { ids, maskable } = document
  const end = hasPrompt ? Math.min(ids.length, length) : ids.length
  for (let start = 0; start < end; start += length) {
    const stop = Math.min(start + length, end)
    if (start > 0 && stop - start === 1) break
    const piece = { ids: ids.subarray(start, stop), maskable: maskable.subarray(start, stop) }
    if (!piece.maskable.includes(1)) continue
    pieces.push({ id: start === 0 ? document.id : `${document.id}+${start}`, ...piece })
  }
  return pieces
}
