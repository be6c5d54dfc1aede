// Filling gaps of a text: gaps of a fixed or a flexible length, any number of them, and the gap between a prefix and a suffix.
// Knows text and tokens; how a gap is filled is the decoding layer's.
import { complete, type GenerationResult } from './decode/index.ts'
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
 * Fills the gaps. Of the lengths of a flexible gap, the one is taken at which the tokens that fill it, and the text that the
 * model can see behind it, are surest: the greatest mean log-probability per token of the gap, from the left gap to the right.
 * Throws UserError where a gap cannot be filled.
 */
export async function fillGaps(
  generator: Pick<Generator, 'fill' | 'maskTokenId' | 'blockSize'>,
  tokenizer: Pick<Tokenizer, 'encode' | 'decode' | 'bosTokenId'>,
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

  const attempt = async (sizes: ReadonlyMap<number, number>) => {
    const ids: number[] = []
    const starts = new Map<number, number>()
    for (const [i, part] of parts.entries()) {
      if (Array.isArray(part)) ids.push(...part)
      else {
        starts.set(i, ids.length)
        ids.push(...new Array<number>(sizes.get(i) as number).fill(mask))
      }
    }
    const confidence = new Map<number, number>()
    const result: GenerationResult = await complete(generator.fill(ids, { ...settings, blockSize }), ({ tokens }) => {
      for (const token of tokens) confidence.set(token.position, token.confidence)
    })
    forwards += result.forwards
    seconds += result.seconds
    const fills = new Map(
      [...starts].map(([i, start]) => {
        const size = sizes.get(i) as number
        const positions = Array.from({ length: size }, (_, j) => start + j)
        const logs = positions.map((position) => Math.log(confidence.get(position) as number))
        return [i, { ids: result.ids.slice(start, start + size), mean: logs.reduce((a, b) => a + b) / size }]
      }),
    )
    return { ids: result.ids, fills }
  }

  for (const i of gaps) {
    const { least, most } = parts[i] as { least: number; most: number }
    if (least === most) continue
    if (most - least >= MOST_LENGTHS)
      throw new UserError(`{{${least}-${most}}}: at most ${MOST_LENGTHS} lengths are tried for one gap`)
    const candidates = Array.from({ length: most - least + 1 }, (_, n) => least + n)
    const attempts = await Promise.all(candidates.map((size) => attempt(new Map([...lengths, [i, size]]))))
    const means = attempts.map(({ fills }) => fills.get(i)?.mean as number)
    lengths.set(i, candidates[means.indexOf(Math.max(...means))])
  }
  const { ids, fills } = await attempt(lengths)
  const decode = (part: readonly number[]) => tokenizer.decode(part, { skipSpecialTokens: true })
  return {
    text: decode(ids),
    fills: gaps.map((i) => {
      const { ids: own, mean } = fills.get(i) as { ids: number[]; mean: number }
      return { text: decode(own), tokens: own.length, confidence: Math.exp(mean) }
    }),
    forwards,
    seconds,
  }
}
