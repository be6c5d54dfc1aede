// The one road from decoding steps to text: tokens in order as they become final, whole characters, no special tokens, the text
// before a stop string or an end token, and the log-probabilities that belong to it. Knows no model.
import type { CommittedToken, Generation, GenerationResult } from '../decode/index.ts'
import { createTextStream, type TextOfTokens } from '../tokenizer/stream.ts'
import { createStopFilter } from './stop-strings.ts'

export interface AssembleOptions {
  tokenizer: TextOfTokens
  /** The tokens before the text. */
  prompt: readonly number[]
  /** The text ends before the first of these; all tokens that end a text of the model. */
  endTokens: readonly number[]
  /** The text ends before the first of these that it comes to hold. Throws where one is empty. */
  stop?: readonly string[]
  /** Position at which the text ends in any case, where another follows. Default: none. */
  end?: number
}

/** A token of the text. */
export interface TextToken extends CommittedToken {
  /** The bytes of text that it stands for; none for special tokens. */
  bytes: Uint8Array
  /** Characters of the text (code points) before the one that it begins with or goes on with. */
  offset: number
}

/** What a step added. All that may still change, and what may become a stop string, is held back. */
export interface TextEvent {
  /** Number of the forward, from 0. */
  step: number
  /** The text so far: it only grows. */
  text: string
  /** What is new of it. */
  added: string
  /** Tokens of the text, in order, whose own text has come or begun. */
  tokens: TextToken[]
  /** What the step decided, anywhere. */
  committed: CommittedToken[]
  /** Tokens that are final, those of a stop string and an end token included. */
  count: number
}

export interface TextResult extends GenerationResult {
  text: string
}

/** Text as it becomes final, then all of it. Leaving the loop early ends the generation. */
export type Writing = AsyncGenerator<TextEvent, TextResult, void>

/**
 * Follows a generation. The result is the generation's; where a stop string or `end` cut it, its `ids` are the tokens up to
 * the one that completed the string, up to `end`, or up to and including an end token before it.
 */
export async function* assemble(generation: Generation, options: AssembleOptions): Writing {
  const { tokenizer, prompt, endTokens, stop = [], end = Number.POSITIVE_INFINITY } = options
  const answer = createAnswer(tokenizer, prompt, stop)
  const known = new Map<number, CommittedToken>()
  const ids: number[] = []
  let reason: GenerationResult['stop'] | undefined
  let enough = false
  let step = 0
  try {
    for (;;) {
      const { done, value } = await generation.next(enough ? ids : undefined)
      if (done) {
        const rest = reason === 'stop' ? undefined : answer.end()
        const { text } = answer
        if (rest && (rest.added !== '' || rest.tokens.length > 0))
          yield { step, text, ...rest, committed: [], count: ids.length }
        return { ...value, text, stop: reason ?? 'length' }
      }
      step = value.step
      for (const token of value.tokens) known.set(token.position, token)
      const before = answer.text
      const tokens: TextToken[] = []
      const final = Math.min(value.final, end)
      for (let next = prompt.length + ids.length; !reason && next < final; next++) {
        const token = known.get(next)
        if (!token) throw new Error(`position ${next} is final without a token`)
        ids.push(token.token)
        if (endTokens.includes(token.token)) reason = 'eos'
        else if (answer.push(token, tokens)) reason = 'stop'
      }
      // At an end token a generation ends by itself; in a text that goes on behind it, here.
      enough = reason === 'stop' || (Number.isFinite(end) && (reason !== undefined || value.final >= end))
      const { text } = answer
      yield { step, text, added: text.slice(before.length), tokens, committed: value.tokens, count: ids.length }
    }
  } finally {
    await generation.return(undefined as never)
  }
}

/** Runs a writing to its end. */
export async function written(writing: Writing): Promise<TextResult> {
  for (;;) {
    const { done, value } = await writing.next()
    if (done) return value
  }
}

/** Text and tokens up to a stop string. */
function createAnswer(tokenizer: TextOfTokens, prompt: readonly number[], stop: readonly string[]) {
  const stream = createTextStream(tokenizer, { after: prompt })
  const filter = createStopFilter(stop)
  /** Tokens that wait for their text, and where in the text it begins. */
  let waiting: { token: TextToken; start: number }[] = []
  let length = 0
  let characters = 0
  let text = ''
  /** Moves tokens whose text has begun. */
  const release = (tokens: TextToken[], all = false) => {
    const free = waiting.filter(({ start }) => all || start < text.length)
    waiting = waiting.slice(free.length)
    for (const { token } of free) tokens.push(token)
  }
  return {
    get text() {
      return text
    },
    /** Adds a token, and to `tokens` those that are certain by it; true where the text ends. */
    push(committed: CommittedToken, tokens: TextToken[]): boolean {
      const piece = stream.push(committed.token)
      waiting.push({ token: { ...committed, bytes: piece.bytes, offset: characters }, start: length })
      length += piece.text.length
      characters += [...piece.text].length
      const { text: added, stopped } = filter.push(piece.text)
      text += added
      release(tokens)
      return stopped
    },
    /** What waited for a character to end, or for a stop string that did not come. */
    end() {
      const tokens: TextToken[] = []
      const before = text
      const { text: rest, stopped } = filter.push(stream.end())
      text += stopped ? rest : rest + filter.end()
      release(tokens, !stopped)
      return { added: text.slice(before.length), tokens }
    },
  }
}
