// From an example to token ids: rendering, which tokens may be masked, the closing EOS, and the cut into pieces that
// fit a row. Knows nothing about files or batches.
import type { ChatMessage, Tokenizer } from '../tokenizer/types.ts'
import { UserError } from '../types.ts'
import type { Example } from './example.ts'
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

/**
 * Tokenises an example. The parts that may be masked and those that may not are encoded apart, as at generation, where
 * the prompt is encoded before anything follows it. A text begins with BOS where the tokenizer puts one; it is not
 * maskable. Returns the reason as a string where the example cannot be rendered.
 */
export function toDocument(
  id: string,
  example: Example,
  tokenizer: Tokenizer,
  options: RenderOptions,
): Document | string {
  const segments = toSegments(example, tokenizer, options)
  if (typeof segments === 'string') return segments
  const eos = eosId(tokenizer)
  const ids: number[] = []
  const maskable: number[] = []
  if (options.template === 'plain' || example.kind === 'text') {
    for (const bos of leadingBos(tokenizer)) {
      ids.push(bos)
      maskable.push(0)
    }
  }
  for (const segment of segments) {
    for (const token of tokenizer.encode(segment.text)) {
      ids.push(token)
      maskable.push(segment.maskable ? 1 : 0)
    }
  }
  if (ids.at(-1) !== eos) {
    ids.push(eos)
    maskable.push(1)
  }
  return { id, ids: Int32Array.from(ids), maskable: Uint8Array.from(maskable) }
}

/**
 * The ids of a prompt exactly as training saw it: what generation and evaluation start from. Names of special tokens in it are
 * text; those of the chat template are tokens.
 */
export function encodePrompt(
  prompt: string | readonly ChatMessage[],
  tokenizer: Tokenizer,
  options: Pick<RenderOptions, 'template' | 'separator'>,
): number[] {
  if (options.template === 'chat') {
    const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
    const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, guard: true })
    return tokenizer.encode(text, { special: 'guarded' })
  }
  if (typeof prompt !== 'string') throw new UserError('a chat needs the chat template; the template is set to plain')
  return [...leadingBos(tokenizer), ...tokenizer.encode(prompt + options.separator, { special: 'text' })]
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

function toSegments(example: Example, tokenizer: Tokenizer, options: RenderOptions): Segment[] | string {
  if (example.kind === 'text') return [{ text: example.text, maskable: true }]
  if (example.kind === 'prompt') {
    if (options.template === 'plain') {
      return [
        { text: example.prompt + options.separator, maskable: false },
        { text: example.completion, maskable: true },
      ]
    }
    const { prompt, completion } = example
    return chatSegments(
      [
        { role: 'user', content: prompt },
        { role: 'assistant', content: completion },
      ],
      tokenizer,
      options,
    )
  }
  if (options.template === 'plain') {
    throw new UserError('rows with messages need a tokenizer with a chat template, and the template set to chat')
  }
  return chatSegments(example.messages, tokenizer, options)
}

/**
 * A chat as alternating segments. An assistant turn begins where the generation prompt ends and lasts through the mark
 * that ends the turn; what follows the last assistant turn is dropped.
 */
function chatSegments(
  messages: readonly ChatMessage[],
  tokenizer: Tokenizer,
  options: RenderOptions,
): Segment[] | string {
  const last = messages.findLastIndex((message) => message.role === 'assistant')
  const used = messages.slice(0, last + 1)
  const full = render(used, tokenizer, false)
  if (typeof full !== 'string') return full.error
  const segments: Segment[] = []
  let done = 0
  for (const [index, message] of used.entries()) {
    if (message.role !== 'assistant' || (options.turns === 'last' && index !== last)) continue
    const before = render(used.slice(0, index), tokenizer, true)
    const through = index === last ? full : render(used.slice(0, index + 1), tokenizer, false)
    if (typeof before !== 'string') return before.error
    if (typeof through !== 'string') return through.error
    const span = turnSpan(full, before, through, message.content.trim(), tokenizer)
    if (span === undefined || span.start < done)
      return `the chat template rewrites message ${index}, so it cannot be told from its prompt`
    segments.push({ text: full.slice(done, span.start), maskable: false })
    segments.push({ text: full.slice(span.start, span.end), maskable: true })
    done = span.end
  }
  return segments
}

function turnSpan(full: string, before: string, through: string, content: string, tokenizer: Tokenizer) {
  if (!full.startsWith(before)) return undefined
  const start = before.length
  const at = full.indexOf(content, start)
  if (at === -1) return undefined
  const contentEnd = at + content.length
  const eos = tokenizer.idToToken(eosId(tokenizer))!
  // Some templates write a turn differently once others follow it; its end is then the EOS after its content.
  const turnEnd = full.startsWith(through) ? through.length : contentEnd
  const eosAt = full.indexOf(eos, contentEnd)
  const closed = eosAt !== -1 && (eosAt < turnEnd || full.slice(contentEnd, eosAt).trim() === '')
  return { start, end: closed ? eosAt + eos.length : Math.max(turnEnd, contentEnd) }
}

function render(messages: readonly ChatMessage[], tokenizer: Tokenizer, addGenerationPrompt: boolean) {
  try {
    return tokenizer.applyChatTemplate(messages, { addGenerationPrompt })
  } catch (error) {
    if (error instanceof UserError && tokenizer.chatTemplate !== undefined) return { error: error.message }
    throw error
  }
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
