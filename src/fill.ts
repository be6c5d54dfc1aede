// Filling gaps of a text: gaps of a fixed or a flexible length, any number of them, and the gap between a prefix and a suffix.
// Knows text and tokens; how a gap is filled is the decoding layer's.
import { type CommittedToken, complete } from './decode/index.ts'
import type { GenerateSettings, Generator } from './generate.ts'
import type { Tokenizer } from './tokenizer/types.ts'
import { UserError } from './types.ts'

/** Text, or a gap of so many tokens. */
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
  generator: Pick<Generator, 'fill' | 'maskTokenId' | 'blockSize'>,
  tokenizer: Pick<Tokenizer, 'encode' | 'decode' | 'eosTokenId'>,
  pieces: readonly Piece[],
  settings: FillSettings = {},
): Promise<Filled> {
  const { maskTokenId: mask } = generator
  if (mask === undefined) throw new UserError('filling needs a diffusion model: this one is autoregressive')
  const parts = pieces.map((piece) => (typeof piece === 'string' ? tokenizer.encode(piece) : piece))
  const gaps = parts.flatMap((part, i) => (Array.isArray(part) ? [] : [i]))
  const lengths = new Map(gaps.map((i) => [i, (parts[i] as { least: number }).least]))
  const blockSize = settings.blockSize ?? generator.blockSize
  let forwards = 0
  let seconds = 0

  /** The text with gaps of these sizes filled. With `follow`, the token behind that gap is masked too, and judged. */
  const attempt = async (sizes: ReadonlyMap<number, number>, follow?: number) => {
    const ids: number[] = []
    const starts = new Map<number, number>()
    for (const [i, part] of parts.entries()) {
      if (!Array.isArray(part)) starts.set(i, ids.length)
      ids.push(...(Array.isArray(part) ? part : new Array<number>(sizes.get(i) as number).fill(mask)))
    }
    const behind = follow === undefined ? -1 : (starts.get(follow) as number) + (sizes.get(follow) as number)
    const next = ids[behind] ?? tokenizer.eosTokenId
    if (follow !== undefined) ids[behind] = mask
    const known = new Map<number, CommittedToken>()
    const options = { ...settings, blockSize, ...(follow === undefined ? {} : { logprobs: MOST_TOP }) }
    const result = await complete(generator.fill(ids, options), ({ tokens }) => {
      for (const token of tokens) known.set(token.position, token)
    })
    forwards += result.forwards
    seconds += result.seconds
    const logs = (i: number) =>
      Array.from({ length: sizes.get(i) as number }, (_, j) =>
        Math.log((known.get((starts.get(i) as number) + j) as CommittedToken).confidence),
      )
    // What is not among the most probable tokens is at most as probable as the last of them.
    const top = known.get(behind)?.top ?? []
    const following = top.find(({ token }) => token === next)?.logprob ?? top.at(-1)?.logprob
    const judged = follow === undefined || next === undefined || next === mask ? undefined : following
    return { ids: result.ids, starts, logs, judged }
  }

  for (const i of gaps) {
    const { least, most } = parts[i] as { least: number; most: number }
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
  const { ids, starts, logs } = await attempt(lengths)
  const decode = (part: readonly number[]) => tokenizer.decode(part, { skipSpecialTokens: true })
  return {
    text: decode(ids),
    fills: gaps.map((i) => {
      const [start, size] = [starts.get(i) as number, lengths.get(i) as number]
      return { text: decode(ids.slice(start, start + size)), tokens: size, confidence: Math.exp(mean(logs(i))) }
    }),
    forwards,
    seconds,
  }
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b) / values.length
