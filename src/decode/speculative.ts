// Self-speculation (introspective strided decoding, I-DLM, arXiv 2604.11035): a forward verifies drafted tokens by the
// distribution that the autoregressive model has for them, and drafts the next ones at mask positions. The text is the model's
// own: greedy decoding takes its most probable tokens, sampling has its distribution. With a threshold, drafts that are sure
// enough are taken unverified: faster, and no longer exact.
//
// Which draft will be the last accepted one is not known before the forward, so masks stand behind every draft where that is
// likely enough, as branches of a tree. What a forward is, forward.ts knows; where drafts come from, drafts.ts.
import type { Cache } from './cache.ts'
import type { Tracker } from './constraints/index.ts'
import { createDraftBudget } from './draft-budget.ts'
import { createDraftRates, type DraftRates } from './draft-rates.ts'
import { type Group, layOut } from './draft-tree.ts'
import { drawAt, verifyDraft } from './draft-verdict.ts'
import { countOfMasks, countSure, createDrafts, type Draft, lastAccepted } from './drafts.ts'
import type { Forward, ForwardResult } from './forward.ts'
import type { LookupOptions } from './lookup.ts'
import type { Predictor } from './predict.ts'
import { prefill } from './prefill.ts'
import { distribution, draws, pick, type SamplingOptions, withSamplingDefaults } from './sampling.ts'
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

/** Most masks of a forward, however little positions are said to cost. */
const MOST_MASKS = 64

/** Yields a step after every forward; returns the text up to its end. The cache may hold a beginning of it. */
export async function* decodeSpeculative(
  forward: Forward,
  cache: Cache,
  { prompt, end, eosTokenIds }: { prompt: readonly number[]; end: number; eosTokenIds: readonly number[] },
  settings: SpeculativeSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { masks, rowCost, threshold, maskTokenId } = settings
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
  const sources = createDrafts({ ...settings, prompt, eosTokenIds, budget, rates, samples })
  let drafts: Draft[] = []
  /** Masks behind the last accepted position, and how many of their drafts were taken or are among `drafts`, from the first. */
  let drafted = { tried: 0, taken: 0, verifying: 0 }
  /** What the step has written so far. */
  let tokens: CommittedToken[] = []
  let ended = false
  const goesOn = () => !ended && ids.length < end

  /** The tokens that the constraint lets stand next. */
  const allowed = (by: Tracker) => async () => {
    const at = ids.length - prompt.length
    if (by.length === at) by.open(1)
    return { tokens: await by.inTurns(() => by.allowed(at)), leading: true }
  }
  const allowedNext = tracker && allowed(tracker)

  /** How many masks stand behind the last known token and behind each draft, at most `most` each. */
  function maskCounts(most: number): number[] {
    let room = MOST_MASKS
    return lastAccepted(drafts).map((probability, draft) => {
      const ends = draft > 0 && eosTokenIds.includes((drafts[draft - 1] as Draft).token)
      // The masks predict from two positions behind the token on.
      const left = end - (ids.length + draft) - 1
      const count = ends ? 0 : Math.max(0, Math.min(most, left, room, budget.masksBehind(probability)))
      room -= count
      return count
    })
  }

  /** Decides the tokens that the forward has verified, and one more; the number of drafts that were accepted. */
  async function takeVerified(result: ForwardResult, step: number): Promise<number> {
    let accepted = 0
    for (let row = 0; row <= drafts.length && goesOn(); row++) {
      const position = ids.length
      const next = await allowedNext?.()
      const { tokens: predicted, details } = predictor.predict(
        result,
        row,
        [position],
        step,
        () => ids,
        next && (() => next),
      )
      const draft = drafts[row]
      const verdict = samples
        ? verifyDraft(draft, distribution(logitsOf(result, row), sampling), drawAt(seed, position, step))
        : { token: predicted[0] as number, accepted: draft?.token === predicted[0] }
      await decide(verdict.token, details(0, verdict.token))
      draft?.observe?.(verdict.accepted)
      if (!verdict.accepted) break
      accepted++
    }
    return accepted
  }

  async function decide(token: number, details: Pick<CommittedToken, 'confidence' | 'logprob' | 'top'>): Promise<void> {
    const at = ids.length - prompt.length
    tokens.push({ position: ids.length, token, block: ids.length, ...details })
    ids.push(token)
    sources.append(token)
    if (tracker) {
      await tracker.inTurns(() => tracker.commit(at, token))
      tracker.settle(at + 1)
    }
    ended = eosTokenIds.includes(token)
  }

  /** What the masks behind the last accepted token propose for the positions behind the one that was just decided. */
  function draftsOf(result: ForwardResult, { row: first, size }: Group, step: number): Draft[] {
    return Array.from({ length: size }, (_, mask) => {
      const row = first + mask
      const confidence = result.confidence[row] as number
      const position = ids.length + mask
      // It adjusts the row's logits, too.
      const { details } = predictor.predict(result, row, [position], step, () => ids)
      const from = samples ? distribution(logitsOf(result, row), sampling) : undefined
      const token = from ? pick(from, drawAt(seed, position, step).draft) : (result.tokens[row] as number)
      return { token, from, confidence, details: details(0, token) }
    })
  }

  /** Drafts that are together more probable than the threshold need no verification. */
  async function takeSure(): Promise<void> {
    for (let left = countSure(drafts, threshold); left > 0 && goesOn(); left--) {
      const { token, details } = drafts[0] as Draft
      if (!details || (allowedNext && !holds((await allowedNext()).tokens, token))) return
      await decide(token, details)
      drafts.shift()
    }
  }

  /** Tokens that alone are allowed need no forward. */
  async function takeForced(): Promise<void> {
    while (allowedNext && goesOn()) {
      const token = onlyToken((await allowedNext()).tokens)
      if (token === undefined) return
      await decide(
        token,
        sampling.logprobs === undefined ? CERTAIN : { ...CERTAIN, logprob: 0, top: [{ token, logprob: 0 }] },
      )
      drafts = drafts[0]?.token === token ? drafts.slice(1) : []
    }
  }

  for (let step = 0; goesOn(); step++) {
    const start = cache.length
    const known = ids.length - start
    const most = drafting() ? masks : 0
    const tree = layOut(start, known, maskCounts(most))
    const result = await forward.run(cache, {
      logitScale,
      signal,
      ids: [...ids.slice(start), ...drafts.map(({ token }) => token), ...tree.masks.map(() => maskTokenId)],
      // Without masks each position sees those before it.
      blockSize: tree.masks.length > 0 ? tree : 1,
      rows: tree.rows,
      masks: tree.masks,
      // Whatever is rejected is forgotten below.
      store: known + drafts.length,
      logits: predictor.logits,
    })

    tokens = []
    const accepted = await takeVerified(result, step)
    cache.truncate(start + known + accepted)
    if (mayRest) forward.brought(tokens.length)
    if (most > 0) budget.followMasks(drafted.tried, drafted.taken + Math.min(accepted, drafted.verifying))
    const group = tree.groups[accepted]
    drafts = ended || !group ? [] : draftsOf(result, group, step)
    const proposed = drafts.length
    // What stands behind an end was not tried.
    const tried = sources.upToEnd(drafts).length
    if (drafts.length > 0) await takeSure()
    drafted = { tried, taken: proposed - drafts.length, verifying: 0 }
    if (allowedNext) await takeForced()
    drafts = ended || !drafting() ? [] : await sources.choose(drafts, end - ids.length)
    drafted.verifying = countOfMasks(drafts)
    budget.followForward(tree.positions.length, tokens.length)
    yield { step, tokens, final: ids.length }
  }
  return ids
}

const CERTAIN = { confidence: 1 }

function logitsOf({ logits, tokens }: ForwardResult, row: number): Float32Array {
  const all = logits as Float32Array
  const width = all.length / tokens.length
  return all.subarray(row * width, (row + 1) * width)
}

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
