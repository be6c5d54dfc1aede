// Parts of a text that are to be filled, which stay in place while the text is edited. Knows no page.

export interface Hole {
  /** In UTF-16 code units, as selections are. */
  start: number
  end: number
  tokens: number
}

/** The holes after `before` became `after` by one edit: what grows or shrinks inside a hole stays in it. */
export function followEdit(holes: readonly Hole[], before: string, after: string): Hole[] {
  const shorter = Math.min(before.length, after.length)
  let same = 0
  while (same < shorter && before[same] === after[same]) same++
  let tail = 0
  while (tail < shorter - same && before.at(-1 - tail) === after.at(-1 - tail)) tail++
  const editEnd = before.length - tail
  const grown = after.length - before.length
  const moved = holes.map((hole) => {
    if (hole.end <= same) return hole
    if (hole.start >= editEnd) return { ...hole, start: hole.start + grown, end: hole.end + grown }
    // Of an edit over its edge, the hole keeps what was its own.
    const start = hole.start <= same ? hole.start : editEnd + grown
    const end = hole.end >= editEnd ? hole.end + grown : same
    return { ...hole, start, end }
  })
  return moved.filter(({ start, end }) => end > start)
}

/** Adds a hole, also over the space before it, which most tokenizers keep with its word; takes in those that it meets. */
export function addHole(holes: readonly Hole[], text: string, { start, end, tokens }: Hole): Hole[] {
  const spaced = start > 0 && text[start - 1] === ' ' && text[start] !== ' ' ? start - 1 : start
  const apart = (hole: Hole) => hole.end < spaced || hole.start > end
  const met = holes.filter((hole) => !apart(hole))
  const merged = {
    start: Math.min(spaced, ...met.map((hole) => hole.start)),
    end: Math.max(end, ...met.map((hole) => hole.end)),
    tokens,
  }
  return [...holes.filter(apart), merged].sort((a, b) => a.start - b.start)
}

/** The text with its holes, as /v1/infill takes it. */
export function toParts(text: string, holes: readonly Hole[]): (string | { mask: number })[] {
  const parts: (string | { mask: number })[] = []
  let at = 0
  for (const { start, end, tokens } of holes) {
    if (start > at) parts.push(text.slice(at, start))
    parts.push({ mask: tokens })
    at = end
  }
  if (at < text.length) parts.push(text.slice(at))
  return parts
}
