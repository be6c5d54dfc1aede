// Judges a text while it grows: what is passed on was judged with all before it, and no finding can begin in it any more.
// A text in pieces is judged as the same text at once, both as it is written and with escapes decoded.
import { decodeEscapes, openEscape } from './escapes.ts'
import { MAX_HELD } from './pattern.ts'
import type { Action, Detector, Finding } from './types.ts'

export interface FilterOptions {
  detectors: readonly Detector[]
  /** Categories in which a text is blocked once their score reaches the threshold; others are only reported. */
  block?: readonly string[]
  /** From this score on a category is flagged. Default 0.5. */
  threshold?: number
}

/** What became certain of a text. */
export interface Judgement {
  /** Text to pass on. */
  text: string
  /** Characters of the original that are decided; behind `blocked` nothing is. */
  taken: number
  /** Whether `text` differs from the original. */
  changed: boolean
  /** What ended the text, if anything did. */
  blocked: Finding | undefined
  findings: Finding[]
}

const NOTHING: Judgement = { text: '', taken: 0, changed: false, blocked: undefined, findings: [] }

export interface FilterStream {
  push(text: string): Judgement
  /** The rest. */
  end(): Judgement
  /** Score of every category in which something was found: the probability that at least one of its rules is right. */
  scores(): Map<string, number>
}

/** Characters before a text that a detector may look back at unless it says otherwise. */
const CONTEXT = 64
/** Characters that are judged at a time. Whoever waits for a turn waits for as many. */
const PIECE = 512

export interface JudgeOptions {
  signal?: AbortSignal | undefined
  /** Waits until a piece may be judged; what it resolves to is called afterwards. Default: other work goes first. */
  turn?: () => Promise<() => void>
}

export interface Filter {
  stream(): FilterStream
  /** Judges a whole text in pieces. Rejects with the signal's reason. */
  judge(text: string, options?: JudgeOptions): Promise<Judgement & { scores: Map<string, number> }>
  flagged(scores: ReadonlyMap<string, number>): string[]
}

export function createFilter({ detectors, block = [], threshold = 0.5 }: FilterOptions): Filter {
  const blocking = new Set(block)

  const reach = Math.max(CONTEXT, ...detectors.map(({ context = 0 }) => context))

  /** What a detector is given of a text that is judged from `start` on. */
  function view(whole: string, start: number, context = CONTEXT): { text: string; from: number; base: number } {
    const base = start - contextOf(whole, start, context).length
    return { text: whole.slice(base), from: start - base, base }
  }

  /** Whether a passage begins at `start` that has not ended, or in whose end something may be under way. None of it is passed on. */
  function isHeld(whole: string, start: number): boolean {
    if (whole.length - start > MAX_HELD) return false
    for (const detector of detectors) {
      if (!detector.passages) continue
      const { text, from, base } = view(whole, start, detector.context)
      const [end] = detector.passages(text, from, false)
      if (end === undefined || detectors.some((other) => openOf(other, whole, start) < base + end)) return true
    }
    return false
  }

  function openOf(detector: Detector, whole: string, start: number): number {
    const { text, from, base } = view(whole, start, detector.context)
    return base + detector.open(text, from)
  }

  /** Everything that is found from `from` on, and the first place where something may be under way. */
  function look(whole: string, start: number, last: boolean) {
    const found: Finding[] = []
    const spans: Span[] = []
    let open = whole.length
    for (const detector of detectors) {
      const { text, from, base } = view(whole, start, detector.context)
      found.push(...detector.find(text, from, last).map((finding) => moved(finding, base)))
      open = Math.min(open, base + detector.open(text, from))
      for (const end of detector.passages?.(text, from, last) ?? [])
        spans.push({ start: spans.at(-1)?.end ?? start, end: base + end })
    }
    const { text, from, base } = view(whole, start)
    open = Math.min(open, base + openEscape(text))
    const decoded = decodeEscapes(text)
    if (!decoded) return { found, open, spans }
    const at = decoded.at.map((index) => index + base)
    const begin = decoded.at.findIndex((index) => index >= from)
    const known = new Set(found.map(({ rule, start, end }) => `${rule} ${start} ${end}`))
    for (const detector of detectors.filter(({ decodes }) => !decodes)) {
      for (const finding of detector.find(decoded.text, begin, last)) {
        const [start, end] = [at[finding.start]!, at[finding.end]!]
        if (!known.has(`${finding.rule} ${start} ${end}`)) found.push({ ...finding, start, end })
      }
      open = Math.min(open, at[detector.open(decoded.text, begin)]!)
    }
    return { found, open, spans: [...spans, ...decoded.escapes.map((span) => moved(span, base))] }
  }

  function stream(): FilterStream {
    const rules = new Map<string, Map<string, number>>()
    let context = ''
    let held = ''
    let ended = false

    const scoreOf = (category: string) =>
      1 - [...(rules.get(category)?.values() ?? [])].reduce((product, score) => product * (1 - score), 1)

    /** Counts a finding; true where it blocks. */
    function count({ action, category, rule, score }: Finding): boolean {
      const known = rules.get(category) ?? new Map<string, number>()
      rules.set(category, known.set(rule, Math.max(score, known.get(rule) ?? 0)))
      return action === 'block' || (action === 'score' && blocking.has(category) && scoreOf(category) >= threshold)
    }

    function judge(fresh: string, last: boolean): Judgement {
      if (ended) return NOTHING
      held += fresh
      const text = context + held
      const from = context.length
      if (!last && isHeld(text, from)) return NOTHING
      const { found, open, spans: wholes } = look(text, from, last)
      let cut = Math.max(from, last ? text.length : open)
      // What reaches over the border is decided with the rest of it.
      const spans = [...found, ...wholes]
      for (let before = -1; before !== cut; ) {
        before = cut
        cut = Math.min(
          cut,
          ...spans.filter(({ start, end }) => start < before && end > before).map(({ start }) => start),
        )
      }
      if (cut < text.length - MAX_HELD) cut = forced(text, text.length - MAX_HELD, spans)
      const findings = found.filter(({ end }) => end <= cut).sort((a, b) => a.end - b.end || a.start - b.start)
      const stop = findings.findIndex(count)
      const blocked = findings[stop]
      const counted = stop === -1 ? findings : findings.slice(0, stop + 1)
      const end = blocked ? blocked.start : cut
      const redactions = merged(found.filter(({ action, start }) => action === 'redact' && start < end))
      let out = ''
      let at = from
      for (const { start, end: over, replacement } of redactions) {
        // A redaction that what is blocked lies in goes with it.
        if (over > cut || (blocked && over > end)) {
          out += text.slice(at, start)
          at = end
          break
        }
        out += text.slice(at, start) + (replacement ?? '')
        at = over
      }
      out += text.slice(at, Math.max(at, end))
      const taken = cut - from
      held = text.slice(cut)
      context = contextOf(text, cut, reach)
      ended = last || blocked !== undefined
      return { text: out, taken, changed: redactions.length > 0, blocked, findings: counted }
    }

    return {
      push: (text) => judge(text, false),
      end: () => judge('', true),
      scores: () => new Map([...rules.keys()].map((category) => [category, scoreOf(category)])),
    }
  }

  return {
    stream,
    async judge(text, { signal, turn = afterOthers } = {}) {
      const whole = stream()
      const parts: Judgement[] = []
      for (let at = 0; at < text.length && !parts.at(-1)?.blocked; at += PIECE) {
        const release = await turn()
        try {
          signal?.throwIfAborted()
          parts.push(whole.push(text.slice(at, at + PIECE)))
        } finally {
          release()
        }
      }
      if (!parts.at(-1)?.blocked) parts.push(whole.end())
      return {
        text: parts.map((part) => part.text).join(''),
        taken: parts.reduce((sum, part) => sum + part.taken, 0),
        changed: parts.some((part) => part.changed),
        blocked: parts.at(-1)?.blocked,
        findings: parts.flatMap((part) => part.findings),
        scores: whole.scores(),
      }
    },
    flagged: (scores) => [...scores].filter(([, score]) => score >= threshold).map(([category]) => category),
  }
}

const afterOthers = async (): Promise<() => void> => {
  await new Promise(setImmediate)
  return () => {}
}

interface Span {
  start: number
  end: number
}

const moved = <S extends Span>(span: S, by: number): S => ({ ...span, start: span.start + by, end: span.end + by })

/** At most `reach` units of a text before `end`, no character cut in two. */
function contextOf(text: string, end: number, reach: number): string {
  const begin = Math.max(0, end - reach)
  return text.slice(isLow(text.charCodeAt(begin)) && begin < end ? begin + 1 : begin, end)
}

/** A cut near `at` that goes neither through a finding nor through a character. */
function forced(text: string, at: number, found: readonly Span[]): number {
  let cut = isLow(text.charCodeAt(at)) ? at + 1 : at
  for (let before = -1; before !== cut; ) {
    before = cut
    cut = Math.max(cut, ...found.filter(({ start, end }) => start < before && end > before).map(({ end }) => end))
  }
  return cut
}

/** Redactions in order; those that overlap are one, so that nothing of either is left. */
function merged(findings: readonly Finding[]): Finding[] {
  const spans: Finding[] = []
  for (const finding of [...findings].sort((a, b) => a.start - b.start || b.end - a.end)) {
    const before = spans.at(-1)
    if (before && finding.start < before.end) before.end = Math.max(before.end, finding.end)
    else spans.push({ ...finding })
  }
  return spans
}

const isLow = (code: number) => code >= 0xdc00 && code <= 0xdfff

/** Actions by how much they do. */
export const strongest = (actions: readonly Action[]): Action | undefined =>
  (['block', 'redact', 'flag', 'score'] as const).find((action) => actions.includes(action))
