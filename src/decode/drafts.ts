// Where drafts come from: masks of the model, earlier text, and what a constraint spells; and how many of them are verified.
import type { Tracker } from './constraints/index.ts'
import type { DraftBudget } from './draft-budget.ts'
import type { DraftRates } from './draft-rates.ts'
import type { Drawn } from './draft-verdict.ts'
import { createLookup, type LookupOptions } from './lookup.ts'
import type { Distribution } from './sampling.ts'
import { expectedConfirmed } from './self-verify.ts'
import type { CommittedToken } from './types.ts'

/** A token that a mask, earlier text or a constraint proposed. */
export interface Draft extends Drawn {
  /** Probability of the most probable token where it was drafted: about that of being accepted. */
  confidence: number
  /** What is reported of the token where it is taken unverified. Undefined: it must be verified. */
  details: Pick<CommittedToken, 'confidence' | 'logprob' | 'top'> | undefined
  /** To be told whether it was accepted, or that it was not worth verifying. */
  observe?(accepted: boolean): void
  recover?(): void
}

export interface DraftOptions {
  prompt: readonly number[]
  eosTokenIds: readonly number[]
  /** Undefined: earlier text is not searched. */
  lookup: LookupOptions | undefined
  tracker: Tracker | undefined
  budget: DraftBudget
  rates: DraftRates
  /** Whether the text is drawn at random. */
  samples: boolean
}

export interface Drafts {
  /** The text goes on with this token. */
  append(token: number): void
  /** What the next forward verifies, at most `most` tokens, given what masks propose. */
  choose(ofMasks: readonly Draft[], most: number): Promise<Draft[]>
  /** Drafts up to the first that ends the text. */
  upToEnd(drafts: readonly Draft[]): Draft[]
}

/** How fast what is usually expected or accepted follows what is seen. */
const USUAL_STEP = 0.1

/** Most tokens that are drafted because the constraint spells them. */
const MOST_SPELLED = 16
/** How fast they are tried again after they were not worth verifying. */
const SPELLED_RECOVERY = 0.02

/** The drafts of one text. */
export function createDrafts(options: DraftOptions): Drafts {
  const { prompt, eosTokenIds, lookup, tracker, budget, rates, samples } = options
  const earlier = lookup && createLookup(prompt, { ...lookup, rates: rates.earlier })
  /** How many drafts of earlier text are usually expected to be accepted. */
  let usual = 0

  /** What the constraint spells, where more of it is expected to be accepted than of what else could stand first. */
  async function best(ofMasks: readonly Draft[], most: number): Promise<readonly Draft[]> {
    const bySpelling = await spelled(most)
    if (bySpelling.length > 0) {
      const byOthers = Math.max(mostExpected(ofMasks, usual)[0] as number, earlier ? expected(lookedUp([], most)) : 0)
      if (expected(bySpelling) > byOthers) return bySpelling
    }
    return withEarlierText(ofMasks, most)
  }

  async function spelled(most: number): Promise<Draft[]> {
    const tokens = (await tracker?.inTurns(() => tracker.spelled(Math.min(MOST_SPELLED, most)))) ?? []
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

  /**
   * The drafts of masks as far as they are worth more than what earlier text has at their place, then that. Each choice
   * depends on the tokens before the place alone, not on what was drawn at it, or sampling would be biased.
   */
  function withEarlierText(ofMasks: readonly Draft[], most: number): readonly Draft[] {
    if (!earlier) return ofMasks
    const ofMasksFrom = mostExpected(ofMasks, usual)
    const best = earlier.bestExpected
    for (let count = 0; ; count++) {
      // The search takes time, where forwards are fast.
      if ((ofMasksFrom[count] as number) > best) continue
      const kept = ofMasks.slice(0, count)
      const found = lookedUp(kept, most)
      const worth = expected(found)
      if (count === 0) usual += USUAL_STEP * (worth - usual)
      if (count === ofMasks.length || worth >= (ofMasksFrom[count] as number)) return [...kept, ...found]
    }
  }

  /** What followed a passage like the text's ending with these drafts. */
  function lookedUp(ahead: readonly Draft[], most: number): Draft[] {
    const found = earlier?.draft({
      most: Math.min(lookup?.most ?? 0, most - ahead.length),
      ahead: ahead.map(({ token }) => token),
    })
    return (found ?? []).map((draft) => ({ ...draft, from: certainly(draft.token), details: undefined }))
  }

  /** Of a draft that is not drawn. */
  function certainly(token: number): Distribution | undefined {
    return samples ? { tokens: [token], probabilities: Float64Array.of(1) } : undefined
  }

  function upToEnd(drafts: readonly Draft[]): Draft[] {
    const last = drafts.findIndex(({ token }) => eosTokenIds.includes(token))
    return last === -1 ? [...drafts] : drafts.slice(0, last + 1)
  }

  return {
    append: (token) => earlier?.append([token]),
    upToEnd,
    async choose(ofMasks, most) {
      const all = upToEnd(await best(ofMasks, most))
      // Where drafts end must not depend on what is drawn, or those that remain would have another distribution.
      const count = budget.worthVerifying(all.map(({ confidence }) => confidence))
      all[count]?.recover?.()
      return all.slice(0, count)
    },
  }
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

/** How many drafts, from the first, are those of masks. */
export function countOfMasks(drafts: readonly Draft[]): number {
  const first = drafts.findIndex(({ details }) => !details)
  return first === -1 ? drafts.length : first
}

/** How many drafts, from the first, are together more probable than `threshold`. */
export function countSure(drafts: readonly Draft[], threshold: number): number {
  let together = 1
  const first = drafts.findIndex(({ confidence, details }) => {
    together *= confidence
    return together <= threshold || !details
  })
  return first === -1 ? drafts.length : first
}

/** The probability of each number of accepted drafts, from none to all, if each is accepted with its confidence. */
export function lastAccepted(drafts: readonly Draft[]): number[] {
  let reached = 1
  return [...drafts, undefined].map((draft) => {
    const here = reached
    reached *= draft?.confidence ?? 1
    return draft ? here - reached : here
  })
}
