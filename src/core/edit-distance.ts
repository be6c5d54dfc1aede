/**
 * Levenshtein distance: the fewest insertions, deletions and substitutions that turn a into b, of characters (code points) or,
 * in lists, of members.
 */
export function editDistance(a: Iterable<unknown>, b: Iterable<unknown>): number {
  const { replaced, inserted, deleted } = edits(a, b)
  return replaced + inserted + deleted
}

/** The fewest edits that turn a into b, by kind; of several ways with as many, the one that keeps most of a. */
export function edits(
  a: Iterable<unknown>,
  b: Iterable<unknown>,
): { replaced: number; inserted: number; deleted: number } {
  const [from, to] = [[...a], [...b]]
  // An edit weighs `heavy`; a replacement one more, so that of two ways with as many edits the one with fewer of them wins.
  const heavy = from.length + to.length + 1
  let row = Array.from({ length: to.length + 1 }, (_, index) => index * heavy)
  for (let i = 1; i <= from.length; i++) {
    const next = [i * heavy]
    for (let j = 1; j <= to.length; j++)
      next.push(
        Math.min(row[j]! + heavy, next[j - 1]! + heavy, row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : heavy + 1)),
      )
    row = next
  }
  const total = row[to.length]!
  const replaced = total % heavy
  const others = Math.floor(total / heavy) - replaced
  const inserted = (others + to.length - from.length) / 2
  return { replaced, inserted, deleted: others - inserted }
}
