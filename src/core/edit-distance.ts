/**
 * Levenshtein distance: the fewest insertions, deletions and substitutions that turn a into b, of characters (code points) or,
 * in lists, of members.
 */
export function editDistance(a: Iterable<unknown>, b: Iterable<unknown>): number {
  const [from, to] = [[...a], [...b]]
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1)))
    row = next
  }
  return row[to.length]!
}
