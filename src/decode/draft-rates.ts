// How often drafts are accepted, by where they come from: first guesses, which follow what is seen. Texts whose tokens do not
// depend on their drafts share what is seen.

/** How a passage of earlier text resembles the text's ending; `short`: the ending is too short to say much. */
export type Resemblance = 'equal' | 'similar' | 'short'

export interface DraftRates {
  /** Of the mask at each place behind a position: whether its draft is accepted if those before it are. Empty: nothing is known. */
  masks: number[]
  /** Of the first draft from earlier text, and of those behind it. */
  earlier: Record<Resemblance, [first: number, further: number]>
  /** Of tokens that spell what a constraint demands. */
  spelled: number
}

export const createDraftRates = (): DraftRates => ({
  masks: [],
  earlier: { equal: [0.6, 0.75], similar: [0.6, 0.75], short: [0.3, 0.75] },
  spelled: 0.8,
})
