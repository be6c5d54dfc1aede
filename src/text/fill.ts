// Filling gaps of a text: gaps of a fixed or a flexible length, any number of them, and the gap between a prefix and a suffix.
// Knows text and tokens; how a gap is filled is the decoding layer's.

import { UserError } from '../core/types.ts'
import { type CommittedToken, complete, type FillOptions } from '../decode/index.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import type { GenerateSettings, Generator } from './generator.ts'
import { encodeTexts, holeText, layOut } from './holes.ts'

/** Text, or a gap with its number of tokens. */
export type Piece = string | { least: number; most: number }

export interface FillSettings extends Omit<GenerateSettings, 'maxNewTokens' | 'stop'> {
  /** Tokens behind a gap that are looked at while it is filled. Default: the block size. */
  rightContext?: number
}

export interface Filled {
  text: string
  /** What came into each gap. */
  fills: { text: string; tokens: number; confidence: number }[]
  forwards: number
  seconds: number
}

/** A gap of n tokens is written {{n}}, one of m to n tokens {{m-n}}. */
const GAP = /\{\{(\d{1,4})(?:-(\d{1,4}))?\}\}/g

/** Tokens among which the one that follows a gap is looked for. */
const MOST_TOP = 100

/** Lengths that are tried for one flexible gap. */
const MOST_LENGTHS = 64

/** Splits a text at its gaps. Throws UserError where there is none, or one makes no sense. */
export function parseGaps(text: string): Piece[] {
  const pieces: Piece[] = []
  let at = 0
  for (const match of text.matchAll(GAP)) {
    const least = Number(match[1])
    const most = Number(match[2] ?? match[1])
    if (least < 1 || most < least) throw new UserError(`${match[0]}: a gap is {{n}} or {{m-n}} with 1 <= m <= n`)
    if (match.index > at) pieces.push(text.slice(at, match.index))
    pieces.push({ least, most })
    at = match.index + match[0].length
  }
  if (pieces.length === 0) throw new UserError('the text has no gap: write {{8}} for 8 tokens, or {{2-8}} for 2 to 8')
  if (at < text.length) pieces.push(text.slice(at))
  return pieces
}

/**
 * Fills the gaps. A flexible gap, from the left one to the right, takes the length at which its tokens and the one that follows
 * (the end of the text, if nothing does) are most probable: the greatest mean log-probability where that one is masked too.
 * Throws UserError where a gap cannot be filled.
 */
export async function fillGaps(
  generator: Pick<Generator, 'fill' | 'maskTokenId' | 'blockSize' | 'endTokens'>,
  tokenizer: Tokenizer,
  pieces: readonly Piece[],
  settings: FillSettings = {},
): Promise<Filled> {
  const { maskTokenId: mask, endTokens } = generator
  if (mask === undefined) throw new UserError('filling needs a diffusion model: this one is autoregressive')
  const encoded = encodeTexts(pieces, tokenizer)
  const gaps = pieces.flatMap((piece, i) => (typeof piece === 'string' ? [] : [{ i, ...piece }]))
  const lengths = new Map(gaps.map(({ i, least }) => [i, least]))
  const blockSize = settings.blockSize ?? generator.blockSize
  let forwards = 0
  let seconds = 0

  /** The text with gaps of these sizes filled. With `follow`, the token behind that gap is masked too, and judged. */
  const attempt = async (sizes: ReadonlyMap<number, number>, follow?: number) => {
    const { ids, spans } = layOut(encoded, mask, (i) => sizes.get(i) as number)
    const behind = follow === undefined ? -1 : spans[follow].end
    // Behind the text stands what ends it.
    const next = behind === ids.length ? endTokens : [ids[behind]]
    if (follow !== undefined) ids[behind] = mask
    const known = new Map<number, CommittedToken>()
    const options: FillOptions = { ...settings, blockSize }
    if (follow !== undefined) Object.assign(options, { logprobs: MOST_TOP, ends: { from: spans.at(-1)!.end } })
    const result = await complete(generator.fill(ids, options), ({ tokens }) => {
      for (const token of tokens) known.set(token.position, token)
    })
    forwards += result.forwards
    seconds += result.seconds
    const logs = (i: number) =>
      Array.from({ length: sizes.get(i) as number }, (_, j) =>
        Math.log((known.get(spans[i].start + j) as CommittedToken).confidence),
      )
    return { ids: result.ids, spans, logs, judged: next.includes(mask) ? undefined : judge(known.get(behind), next) }
  }

  for (const { i, least, most } of gaps) {
    if (least === most) continue
    if (most - least >= MOST_LENGTHS)
      throw new UserError(`{{${least}-${most}}}: at most ${MOST_LENGTHS} lengths are tried for one gap`)
    const candidates = Array.from({ length: most - least + 1 }, (_, n) => least + n)
    const scores = await Promise.all(
      candidates.map(async (size) => {
        const { logs, judged } = await attempt(new Map([...lengths, [i, size]]), i)
        return mean([...logs(i), ...(judged === undefined ? [] : [judged])])
      }),
    )
    lengths.set(i, candidates[scores.indexOf(Math.max(...scores))])
  }
  const { ids, spans, logs } = await attempt(lengths)
  const textAt = (i: number) => holeText(ids, spans[i], tokenizer)
  return {
    text: pieces.map((piece, i) => (typeof piece === 'string' ? piece : textAt(i))).join(''),
    fills: gaps.map(({ i }) => ({
      ...{ text: textAt(i), tokens: lengths.get(i) as number, confidence: Math.exp(mean(logs(i))) },
    })),
    forwards,
    seconds,
  }
}

/** ln of the probability of any of `tokens` at a position, of what is known; undefined where nothing is. */
function judge(position: CommittedToken | undefined, tokens: readonly number[]): number | undefined {
  const top = position?.top ?? []
  const found = top.filter(({ token }) => tokens.includes(token))
  if (tokens.length === 0 || top.length === 0) return undefined
  // What is not among the most probable tokens is at most as probable as the last of them.
  return found.length === 0
    ? top.at(-1)!.logprob
    : Math.log(found.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0))
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b) / values.length
