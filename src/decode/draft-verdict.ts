// Speculative sampling (Leviathan et al., 2023): whether a draft stands, and what stands instead.
import { random } from '../core/random.ts'
import { type Distribution, pick } from './sampling.ts'

export interface Drawn {
  token: number
  /** What it was drawn from; undefined where it is the most probable token. */
  from: Distribution | undefined
}

const SPECULATIVE_STREAM = 0x73747269

/** The numbers in [0, 1) that decide about a position at a step: what is drafted, whether it is accepted, what stands instead. */
export function drawAt(seed: number, position: number, step: number) {
  const draw = random(seed, SPECULATIVE_STREAM, position, step)
  const uniform = () => draw.uint32() * 2 ** -32 + (draw.uint32() >>> 12) * 2 ** -52
  return { draft: uniform(), accept: uniform(), instead: uniform() }
}

/**
 * Accepts a draft of distribution q with probability min(1, p / q), else draws from max(0, p - q), normalised: what comes out
 * has the distribution p. Without a draft it is drawn from p.
 */
export function verifyDraft(
  draft: Drawn | undefined,
  p: Distribution,
  { accept, instead }: { accept: number; instead: number },
): { token: number; accepted: boolean } {
  if (!draft?.from) return { token: pick(p, instead), accepted: false }
  const q = new Map(draft.from.tokens.map((token, i) => [token, (draft.from as Distribution).probabilities[i]]))
  const own = p.tokens.indexOf(draft.token)
  const probability = own === -1 ? 0 : p.probabilities[own]
  if (accept * (q.get(draft.token) as number) < probability) return { token: draft.token, accepted: true }
  const rest = p.probabilities.map((value, i) => Math.max(0, value - (q.get(p.tokens[i]) ?? 0)))
  const sum = rest.reduce((a, b) => a + b, 0)
  // Nothing is left only where p and q are equal but for rounding.
  if (sum <= 0) return { token: pick(p, instead), accepted: false }
  return {
    token: pick({ tokens: p.tokens, probabilities: rest.map((value) => value / sum) }, instead),
    accepted: false,
  }
}
