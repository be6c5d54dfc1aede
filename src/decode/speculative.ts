// Self-speculation (introspective strided decoding, I-DLM, arXiv 2604.11035): a forward verifies drafted tokens by the
// distribution that the autoregressive model has for them, and drafts the next ones at mask positions. The text is the model's
// own: greedy decoding takes its most probable tokens, sampling has its distribution (speculative sampling; Leviathan et al.,
// 2023). With a threshold, drafts that are sure enough are taken unverified: faster, and no longer exact.
//
// Which draft will be the last accepted one is not known before the forward, so masks stand behind every draft where that is
// likely enough, as branches of a tree. What a forward is, forward.ts knows.
import { random } from '../core/random.ts'
import type { Cache } from './cache.ts'
import type { Tracker } from './constraints/index.ts'
import { createDraftBudget } from './draft-budget.ts'
import { createDraftRates, type DraftRates } from './draft-rates.ts'
import type { Forward } from './forward.ts'
import { createLookup, type LookupOptions } from './lookup.ts'
import type { Predictor } from './predict.ts'
import { prefill } from './prefill.ts'
import { type Distribution, distribution, draws, pick, type SamplingOptions, withSamplingDefaults } from './sampling.ts'
import { expectedConfirmed } from './self-verify.ts'
import type { CommittedToken, DecodeStep } from './types.ts'

export interface SpeculativeSettings {
  /** Most masks behind a position: the most tokens that they draft at a time. 0: none draft. */
  masks: number
  /** Drafts are looked up in the text, too, and taken where more of them are expected to be accepted. Undefined: they are not. */
  lookup: LookupOptions | undefined
  /** Time of one more position in a forward, as a share of a forward of one: what drafts and masks are weighed against. */
  rowCost: number
  /**
   * Drafts are taken without verification as long as the product of their probabilities is above this. 1: none are.
   */
  threshold: number
  /** What texts before have seen of drafts, where what is drafted does not change the text. */
  rates: DraftRates
  /** What stands at a mask; where an adapter acts it does not matter. */
  maskTokenId: number
  predictor: Predictor
  /** Which tokens the text may go on with. Where there is one only, it needs no forward. Undefined: any. */
  tracker: Tracker | undefined
  sampling: SamplingOptions
  logitScale?: number
  signal?: AbortSignal
}

interface Drawn {
  token: number
  /** What it was drawn from; undefined where it is the most probable token. */
  from: Distribution | undefined
}

/** A token that a mask or earlier text proposed. */
interface Draft extends Drawn {
  /** Probability of the most probable token where it was drafted: about that of being accepted. */
  confidence: number
  /** What is reported of the token where it is taken unverified. Undefined: it must be verified. */
  details: Pick<CommittedToken, 'confidence' | 'logprob' | 'top'> | undefined
  /** To be told whether it was accepted, or that it was not worth verifying. */
  observe?(accepted: boolean): void
  recover?(): void
}

/** Most masks of a forward, however little positions are said to cost. */
const MOST_MASKS = 64

/** How fast the usual follows what is seen. */
const USUAL_STEP = 0.1

/** Most tokens that are drafted because the constraint spells them. */
const MOST_SPELLED = 16
/** How fast they are tried again after they were not worth verifying. */
const SPELLED_RECOVERY = 0.02

/** Yields a step after every forward; returns the text up to its end. The cache may hold a beginning of it. */
export async function* decodeSpeculative(
  forward: Forward,
  cache: Cache,
  { prompt, end, eosTokenIds }: { prompt: readonly number[]; end: number; eosTokenIds: readonly number[] },
  settings: SpeculativeSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { masks, lookup, rowCost, threshold, maskTokenId } = settings
  const { predictor, tracker, sampling, logitScale, signal } = settings
  const ids = [...prompt]
  const samples = draws(sampling)
  const { seed } = withSamplingDefaults(sampling)
  await prefill(forward, cache, ids, { signal })

  // What is drafted must not change the text: sampled, or taken unverified, it would.
  const mayRest = !samples && threshold >= 1
  const drafting = () => !mayRest || forward.drafting()
  // Nor may what other texts have seen: the same request would be answered in another way.
  const rates = mayRest ? settings.rates : createDraftRates()
  const budget = createDraftBudget({ rowCost, masks, usual: rates.masks }, () => (mayRest ? forward.texts() : 1))
  let drafts: Draft[] = []
  /** Masks behind the last accepted position, and how many of their drafts were taken or are among `drafts`, from the first. */
  let drafted = { tried: 0, taken: 0, verifying: 0 }
  const earlier = lookup && createLookup(prompt, { ...lookup, rates: rates.earlier })
  /** How many drafts of earlier text are usually expected to be accepted. */
  let usual = 0
  let ended = false

  /** The tokens that the constraint lets stand next. */
  const allowed = (by: Tracker) => () => {
    const at = ids.length - prompt.length
    if (by.length === at) by.open(1)
    return { tokens: by.allowed(at), leading: true }
  }
  const allowedNext = tracker && allowed(tracker)

  for (let step = 0; !ended && ids.length < end; step++) {
    const start = cache.length
    const known = ids.length - start
    const last = lastAccepted(drafts)
    const most = drafting() ? masks : 0
    let room = MOST_MASKS
    const tree = layOut(
      start,
      known,
      last.map((probability, draft) => {
        const ends = draft > 0 && eosTokenIds.includes((drafts[draft - 1] as Draft).token)
        // The masks predict from two positions behind the token on.
        const left = end - (ids.length + draft) - 1
        const count = ends ? 0 : Math.max(0, Math.min(most, left, room, budget.masksBehind(probability)))
        room -= count
        return count
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
    let accepted = 0
    for (let row = 0; row <= drafts.length && !ended && ids.length < end; row++) {
      const position = ids.length
      const { tokens: predicted, details } = predictor.predict(result, row, [position], step, () => ids, allowedNext)
      const draft = drafts[row]
      const verdict = samples
        ? verify(draft, distribution(rowOf(result.logits as Float32Array, row), sampling), drawAt(seed, position, step))
        : { token: predicted[0], accepted: draft?.token === predicted[0] }
      decide(verdict.token, details(0, verdict.token))
      draft?.observe?.(verdict.accepted)
      if (!verdict.accepted) break
      accepted++
    }
    cache.truncate(start + known + accepted)
    if (mayRest) forward.brought(tokens.length)
    if (most > 0) budget.followMasks(drafted.tried, drafted.taken + Math.min(accepted, drafted.verifying))
    const group = tree.groups[accepted]
    drafts = ended ? [] : draftsOf(group, step)
    const proposed = drafts.length
    // What stands behind an end was not tried.
    const tried = upToEnd(drafts).length
    takeSure()
    drafted = { tried, taken: proposed - drafts.length, verifying: 0 }
    takeForced()
    drafts = ended || !drafting() ? [] : worthwhile(upToEnd(best(drafts)))
    drafted.verifying = countOfMasks(drafts)
    budget.followForward(tree.positions.length, tokens.length)
    yield { step, tokens, final: ids.length }

    function decide(token: number, details: Pick<CommittedToken, 'confidence' | 'logprob' | 'top'>): void {
      const at = ids.length - prompt.length
      tokens.push({ position: ids.length, token, block: ids.length, ...details })
      ids.push(token)
      earlier?.append([token])
      tracker?.commit(at, token)
      tracker?.settle(at + 1)
      ended = eosTokenIds.includes(token)
    }

    /** Drafts that are together more probable than the threshold need no verification. */
    function takeSure(): void {
      for (let left = countSure(drafts, threshold); left > 0 && !ended && ids.length < end; left--) {
        const { token, details } = drafts[0] as Draft
        if (!details || (allowedNext && !holds(allowedNext().tokens, token))) return
        decide(token, details)
        drafts.shift()
      }
    }

    /** Tokens that alone are allowed need no forward. */
    function takeForced(): void {
      while (allowedNext && !ended && ids.length < end) {
        const token = onlyToken(allowedNext().tokens)
        if (token === undefined) return
        decide(
          token,
          sampling.logprobs === undefined ? CERTAIN : { ...CERTAIN, logprob: 0, top: [{ token, logprob: 0 }] },
        )
        drafts = drafts[0]?.token === token ? drafts.slice(1) : []
      }
    }

    /** What the masks behind the last accepted token propose for the positions behind the one that was just decided. */
    function draftsOf(group: Group | undefined, step: number): Draft[] {
      const proposed: Draft[] = []
      for (let mask = 0; mask < (group?.size ?? 0); mask++) {
        const row = (group as Group).row + mask
        const confidence = result.confidence[row]
        const position = ids.length + mask
        // It adjusts the row's logits, too.
        const { details } = predictor.predict(result, row, [position], step, () => ids)
        const from = samples ? distribution(rowOf(result.logits as Float32Array, row), sampling) : undefined
        const token = from ? pick(from, drawAt(seed, position, step).draft) : result.tokens[row]
        proposed.push({ token, from, confidence, details: details(0, token) })
      }
      return proposed
    }

    /** What the constraint spells, where more of it is expected to be accepted than of what else could stand first. */
    function best(ofMasks: Draft[]): Draft[] {
      const bySpelling = spelled()
      if (bySpelling.length > 0) {
        const byOthers = Math.max(mostExpected(ofMasks, usual)[0] as number, earlier ? expected(lookedUp([])) : 0)
        if (expected(bySpelling) > byOthers) return bySpelling
      }
      return withEarlierText(ofMasks)
    }

    function spelled(): Draft[] {
      const tokens = tracker?.spelled(Math.min(MOST_SPELLED, end - ids.length)) ?? []
      return tokens.map((token) => ({
        ...{ token, confidence: rates.spelled, from: certainly(token), details: undefined },
        observe(accepted) {
          rates.spelled += USUAL_STEP * (Number(accepted) - rates.spelled)
        },
        recover() {
          rates.spelled += SPELLED_RECOVERY * (1 - rates.spelled)
        },
      }))
    }

    /** A draft that is not drawn. */
    function certainly(token: number): Distribution | undefined {
      return samples ? { tokens: [token], probabilities: Float64Array.of(1) } : undefined
    }

    /** Where drafts end must not depend on what is drawn, or those that remain would have another distribution. */
    function worthwhile(all: Draft[]): Draft[] {
      const count = budget.worthVerifying(all.map(({ confidence }) => confidence))
      all[count]?.recover?.()
      return all.slice(0, count)
    }

    function upToEnd(all: Draft[]): Draft[] {
      const last = all.findIndex(({ token }) => eosTokenIds.includes(token))
      return last === -1 ? all : all.slice(0, last + 1)
    }

    /**
     * The drafts of masks as far as they are worth more than what earlier text has at their place, then that. Each choice
     * depends on the tokens before the place alone, not on what was drawn at it, or sampling would be biased.
     */
    function withEarlierText(ofMasks: Draft[]): Draft[] {
      if (!earlier) return ofMasks
      const ofMasksFrom = mostExpected(ofMasks, usual)
      const best = earlier.bestExpected
      for (let count = 0; ; count++) {
        // The search takes time, where forwards are fast.
        if (ofMasksFrom[count] > best) continue
        const kept = ofMasks.slice(0, count)
        const found = lookedUp(kept)
        const worth = expected(found)
        if (count === 0) usual += USUAL_STEP * (worth - usual)
        if (count === ofMasks.length || worth >= ofMasksFrom[count]) return [...kept, ...found]
      }
    }

    /** What followed a passage like the text's ending with these drafts. */
    function lookedUp(ahead: readonly Draft[]): Draft[] {
      const options = {
        most: Math.min(lookup?.most ?? 0, end - ids.length - ahead.length),
        ahead: ahead.map(({ token }) => token),
      }
      return (earlier?.draft(options) ?? []).map((draft) => ({
        ...draft,
        from: certainly(draft.token),
        details: undefined,
      }))
    }

    function rowOf(logits: Float32Array, row: number): Float32Array {
      const width = logits.length / result.tokens.length
      return logits.subarray(row * width, (row + 1) * width)
    }
  }
  return ids
}

const CERTAIN = { confidence: 1 }

/** Whether a set of tokens, a bit each, holds one. */
const holds = (tokens: Uint32Array, token: number): boolean => (((tokens[token >>> 5] ?? 0) >>> (token & 31)) & 1) === 1

/** The token of a set that holds no other. */
function onlyToken(tokens: Uint32Array): number | undefined {
  let found: number | undefined
  for (const [word, bits] of tokens.entries()) {
    if (bits === 0) continue
    if (found !== undefined || (bits & (bits - 1)) !== 0) return undefined
    found = 32 * word + 31 - Math.clz32(bits)
  }
  return found
}

/** How many drafts, from the first, are those of masks. */
function countOfMasks(drafts: readonly Draft[]): number {
  const first = drafts.findIndex(({ details }) => !details)
  return first === -1 ? drafts.length : first
}

/** How many of these drafts are expected to be accepted. */
const expected = (drafts: readonly Draft[]): number => expectedConfirmed(drafts.map(({ confidence }) => confidence))

/** From each draft on, and behind the last: the most that are expected of a beginning with as many as `behind` looked up behind it. */
function mostExpected(drafts: readonly Draft[], behind: number): number[] {
  const most = new Array<number>(drafts.length + 1).fill(0)
  for (let i = drafts.length - 1; i >= 0; i--)
    most[i] = (drafts[i] as Draft).confidence * (1 + Math.max(behind, most[i + 1] as number))
  return most
}

/** How many drafts, from the first, are together more probable than `threshold`. */
function countSure(drafts: readonly Draft[], threshold: number): number {
  let together = 1
  const first = drafts.findIndex(({ confidence, details }) => {
    together *= confidence
    return together <= threshold || !details
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
