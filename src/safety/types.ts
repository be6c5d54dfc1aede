// What detectors, rules and filters have in common. Knows neither HTTP nor models.

/** The categories of OpenAI's moderation API. Rules may name others. */
export const categories = [
  'harassment',
  'harassment/threatening',
  'hate',
  'hate/threatening',
  'illicit',
  'illicit/violent',
  'self-harm',
  'self-harm/intent',
  'self-harm/instructions',
  'sexual',
  'sexual/minors',
  'violence',
  'violence/graphic',
] as const

/** `score`: counts towards its category, whose sum decides; the others act by themselves. */
export type Action = 'score' | 'flag' | 'redact' | 'block'

/** Something that a detector found in text[start, end). */
export interface Finding {
  rule: string
  category: string
  action: Action
  /** Probability that the text belongs to the category, were there nothing else in it. */
  score: number
  start: number
  end: number
  /** What stands in its place, for `redact`. */
  replacement?: string
}

/** Looks for one kind of thing, in a text that may still grow at its end. */
export interface Detector {
  /** Characters before `from` that it looks back at (default 64). */
  context?: number
  /** Whether it decodes escapes itself; others are given the text a second time, as it reads with its escapes decoded. */
  decodes?: boolean
  /** What begins at `from` or behind it; the text before is there to be looked back at. `last`: the text is at its end. */
  find(text: string, from: number, last: boolean): Finding[]
  /**
   * The first place from `from` on where a finding could begin, end otherwise, or vanish when more text comes; the text's
   * length where there is none. Findings that begin before it are final.
   */
  open(text: string, from: number): number
  /** Ends of the passages from `from` on that are judged as wholes: no text is passed on up to the middle of one. */
  passages?(text: string, from: number, last: boolean): number[]
}
