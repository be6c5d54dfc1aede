// How many positions of a forward drafts and masks are worth. A position costs time, wherever it stands; it is worth the tokens
// that it is expected to save forwards of. Where one more costs more than the text's tokens have cost so far, there is none.
// Follows the text, and where it may (see speculative.ts) how many texts share forwards and what masks usually bring.

/** First guess of the probability that a mask's draft is accepted if those before it are. */
const FIRST_RATE = 0.8
/** How fast it follows what is seen: in this text, and over all texts. */
const RATE_STEP = 0.1
const USUAL_STEP = 0.02
/** What was given up is tried again after a while: what is written may have changed. */
const RECOVERY = 0.01

/** First guess of the tokens that a forward brings, as if this many forwards had been seen. */
const FIRST_TOKENS = 2
const FIRST_FORWARDS = 4

export interface DraftBudgetOptions {
  /** Time of one more position in a forward, as a share of the time of a forward of one position. */
  rowCost: number
  /** Most masks behind a position. */
  masks: number
  /** How often masks' drafts are usually accepted, by their place: where a text begins; follows all texts. Default: first guesses. */
  usual?: number[]
}

export interface DraftBudget {
  /** How many of the drafts, from the first, are worth verifying. `confidences`: of each, if those before it are accepted. */
  worthVerifying(confidences: readonly number[]): number
  /** How many masks are worth their time behind a position that is the last accepted one with this probability. */
  masksBehind(probability: number): number
  /**
   * Of `tried` masks behind the position that was last accepted, so many drafted tokens that the text took. The others were in
   * vain, whether rejected, not worth verifying or less than what else was drafted.
   */
  followMasks(tried: number, taken: number): void
  /** A forward of so many positions brought so many tokens. */
  followForward(positions: number, tokens: number): void
}

/** `texts()`: how many share forwards now. Positions then make up more of the time, as there is one forward for all. */
export function createDraftBudget(
  { rowCost, masks, usual = [] }: DraftBudgetOptions,
  texts: () => number = () => 1,
): DraftBudget {
  while (usual.length < masks) usual.push(FIRST_RATE)
  /** Of the mask at each place: whether its draft is accepted if those before it are. */
  const rates = usual.slice(0, masks)
  const total = { tokens: FIRST_TOKENS * FIRST_FORWARDS, time: FIRST_FORWARDS }

  /** Of a position among those of `texts` in a forward, in forwards of one position of each text. */
  function cost(): number {
    const count = texts()
    return (count * rowCost) / (1 - rowCost + count * rowCost)
  }
  /** Tokens that take as much time as one more position. */
  const price = () => (cost() * total.tokens) / total.time

  return {
    worthVerifying(confidences) {
      const least = price()
      let reached = 1
      const count = confidences.findIndex((confidence) => {
        reached *= confidence
        return reached < least
      })
      return count === -1 ? confidences.length : count
    },
    masksBehind(probability) {
      const least = price()
      let accepted = 1
      // What a mask drafts must be verified, too.
      const count = rates.findIndex((rate) => {
        accepted *= rate
        return probability * (accepted - least) < least
      })
      return count === -1 ? masks : count
    },
    followMasks(tried, taken) {
      for (let i = 0; i < Math.min(tried, taken + 1); i++) {
        rates[i]! += RATE_STEP * (Number(i < taken) - rates[i]!)
        usual[i]! += USUAL_STEP * (Number(i < taken) - usual[i]!)
      }
      if (tried < masks) rates[tried]! += RECOVERY * (1 - rates[tried]!)
    },
    followForward(positions, tokens) {
      total.time += 1 + cost() * (positions - 1)
      total.tokens += tokens
    },
  }
}
