// Self-speculation (introspective strided decoding, I-DLM, arXiv 2604.11035): a forward verifies drafted tokens by the
// distribution that the autoregressive model has for them, and drafts the next ones at mask positions. The text is the model's
// own: greedy decoding takes its most probable tokens, sampling has its distribution (speculative sampling; Leviathan et al.,
// 2023). With a threshold, drafts that are sure enough are taken unverified: faster, and no longer exact.
//
// Which draft will be the last accepted one is not known before the forward, so masks stand behind every draft where that is
// likely enough, as branches of a tree. What a forward is, forward.ts knows.
import { random } from '../core/random.ts'
import type { Cache } from './cache.ts'
import type { Forward } from './forward.ts'
import type { Predictor } from './predict.ts'
import { prefill } from './prefill.ts'
import { type Distribution, distribution, draws, pick, type SamplingOptions, withSamplingDefaults } from './sampling.ts'
import type { CommittedToken, DecodeStep } from './types.ts'

export interface SpeculativeSettings {
  /** Masks behind a position: the most tokens that are drafted at a time. */
  masks: number
  /**
   * Drafts end before the first for which the product of the drafts' probabilities so far (of the most probable token at
   * each) is below this. 0: they never end early.
   */
  draftThreshold: number
  /**
   * Masks stand behind a token only where this is at most the probability, after the drafts', that it is the last one accepted.
   * Where it is and has none, the next forward verifies nothing and decodes one token. 0: behind every token.
   */
  branchThreshold: number
  /**
   * Drafts are taken without verification as long as the product of their probabilities is above this. 1: none are.
   */
  threshold: number
  /** What stands at a mask; where an adapter acts it does not matter. */
  maskTokenId: number
  predictor: Predictor
  sampling: SamplingOptions
  logitScale?: number
  signal?: AbortSignal
}

interface Drawn {
  token: number
  /** What it was drawn from; undefined where it is the most probable token. */
  from: Distribution | undefined
}

/** A token that a mask proposed. */
interface Draft extends Drawn {
  /** Probability of the most probable token where it was drafted: about that of being accepted. */
  confidence: number
  /** What is reported of the token where it is taken unverified. */
  details: Pick<CommittedToken, 'confidence' | 'logprob' | 'top'>
}

/** Yields a step after every forward; returns the text up to its end. The cache may hold a beginning of it. */
export async function* decodeSpeculative(
  forward: Forward,
  cache: Cache,
  { prompt, end, eosTokenIds }: { prompt: readonly number[]; end: number; eosTokenIds: readonly number[] },
  settings: SpeculativeSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { masks, draftThreshold, branchThreshold, threshold, maskTokenId } = settings
  const { predictor, sampling, logitScale, signal } = settings
  const ids = [...prompt]
  const samples = draws(sampling)
  const { seed } = withSamplingDefaults(sampling)
  await prefill(forward, cache, ids, { signal })

  let drafts: Draft[] = []
  for (let step = 0, ended = false; !ended && ids.length < end; step++) {
    const start = cache.length
    const known = ids.length - start
    const last = lastAccepted(drafts)
    const tree = layOut(
      start,
      known,
      last.map((probability, draft) => {
        const ends = draft > 0 && eosTokenIds.includes((drafts[draft - 1] as Draft).token)
        // The masks predict from two positions behind the token on.
        return ends || probability < branchThreshold ? 0 : Math.max(0, Math.min(masks, end - (ids.length + draft) - 1))
      }),
    )
    const result = await forward.run(cache, {
      logitScale,
      signal,
      ids: [...ids.slice(start), ...drafts.map(({ token }) => token), ...tree.masks.map(() => maskTokenId)],
      blockSize: tree,
      rows: tree.rows,
      masks: tree.masks,
      // Whatever is rejected is forgotten below.
      store: known + drafts.length,
      logits: predictor.logits,
    })

    const tokens: CommittedToken[] = []
    const text = () => [...ids, ...tokens.map(({ token }) => token)]
    let accepted = 0
    for (let row = 0; row <= drafts.length && !ended && ids.length + tokens.length < end; row++) {
      const position = ids.length + row
      const { tokens: predicted, details } = predictor.predict(result, row, [position], step, text)
      const draft = drafts[row]
      const verdict = samples
        ? verify(draft, distribution(rowOf(result.logits as Float32Array, row), sampling), drawAt(seed, position, step))
        : { token: predicted[0], accepted: draft?.token === predicted[0] }
      tokens.push({ position, token: verdict.token, block: position, ...details(0, verdict.token) })
      ended = eosTokenIds.includes(verdict.token)
      if (!verdict.accepted) break
      accepted++
    }
    for (const { token } of tokens) ids.push(token)
    cache.truncate(start + known + accepted)
    const proposed = ended ? [] : draftsOf(tree.groups[accepted], step)
    const sure = Math.min(countSure(proposed, threshold), end - ids.length)
    for (const { token, details } of proposed.slice(0, sure)) {
      tokens.push({ position: ids.length, token, block: ids.length, ...details })
      ids.push(token)
      ended = eosTokenIds.includes(token)
    }
    drafts = proposed.slice(sure)
    yield { step, tokens, final: ids.length }

    /** What the masks behind the last accepted token propose for the positions behind the one that was just decided. */
    function draftsOf(group: Group | undefined, step: number): Draft[] {
      const proposed: Draft[] = []
      let together = 1
      for (let mask = 0; mask < (group?.size ?? 0); mask++) {
        const row = (group as Group).row + mask
        // Where drafts end must not depend on what is drawn, or those that remain would have another distribution.
        together *= result.confidence[row]
        if (together < draftThreshold) break
        const confidence = result.confidence[row]
        const position = ids.length + mask
        // It adjusts the row's logits, too.
        const { details } = predictor.predict(result, row, [position], step, () => ids)
        const from = samples ? distribution(rowOf(result.logits as Float32Array, row), sampling) : undefined
        const token = from ? pick(from, drawAt(seed, position, step).draft) : result.tokens[row]
        proposed.push({ token, from, confidence, details: details(0, token) })
        if (eosTokenIds.includes((proposed.at(-1) as Draft).token)) break
      }
      return proposed
    }

    function rowOf(logits: Float32Array, row: number): Float32Array {
      const width = logits.length / result.tokens.length
      return logits.subarray(row * width, (row + 1) * width)
    }
  }
  return ids
}

/** How many drafts, from the first, are together more probable than `threshold`. */
function countSure(drafts: readonly Draft[], threshold: number): number {
  let together = 1
  const first = drafts.findIndex(({ confidence }) => {
    together *= confidence
    return together <= threshold
  })
  return first === -1 ? drafts.length : first
}

/** The probability of each number of accepted drafts, from none to all, if each is accepted with its confidence. */
function lastAccepted(drafts: readonly Draft[]): number[] {
  let reached = 1
  return [...drafts, undefined].map((draft) => {
    const here = reached
    reached *= draft?.confidence ?? 1
    return draft ? here - reached : here
  })
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
export function verify(
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

/** The masks behind one position: how many, and the row of the first among the predicted ones. */
interface Group {
  size: number
  row: number
}

interface Tree {
  positions: number[]
  blocks: number[]
  ends: number[]
  /** Rows that are predicted: the last known token, the drafts, then the masks, group by group. */
  rows: number[]
  /** Which of the new positions are masks. */
  masks: number[]
  /** One behind the last known token and one behind each draft. */
  groups: Group[]
}

/**
 * The new positions of a forward: `known` tokens from position `start`, the drafts, then the masks, `sizes[i]` of them behind
 * the last known token and behind each draft. Tokens see those before; masks see the token they stand behind, those before
 * it, and the masks before them in their group: entry and exit times of a walk through that tree, in which each token's masks
 * come before the next token.
 */
export function layOut(start: number, known: number, sizes: readonly number[]): Tree {
  const spine = known + sizes.length - 1
  const tree: Tree = { positions: [], blocks: [], ends: [], rows: [], masks: [], groups: [] }
  const unit = Math.max(0, ...sizes) + 1
  for (let i = 0; i < spine; i++) {
    tree.positions.push(start + i)
    tree.blocks.push(i * unit)
    tree.ends.push(Number.MAX_SAFE_INTEGER)
    if (i >= known - 1) tree.rows.push(i)
  }
  for (const [i, size] of sizes.entries()) {
    const token = known - 1 + i
    tree.groups.push({ size, row: tree.rows.length })
    for (let mask = 0; mask < size; mask++) {
      tree.rows.push(tree.positions.length)
      tree.masks.push(tree.positions.length)
      tree.positions.push(start + token + 1 + mask)
      tree.blocks.push(token * unit + 1 + mask)
      tree.ends.push((token + 1) * unit)
    }
  }
  return tree
}
