// What changed between two texts, by words. Knows no page.

export interface Change {
  /** Empty where only something was added. */
  before: string
  /** Empty where only something was taken away. */
  after: string
  same: boolean
}

const pieces = (text: string): string[] => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? []

/** Texts with more different words than this are shown as one change. */
const MOST = 2000

/** The longest common subsequence of words, and the changes between. */
export function diffWords(before: string, after: string): Change[] {
  const a = pieces(before)
  const b = pieces(after)
  let head = 0
  while (head < a.length && head < b.length && a[head] === b[head]) head++
  let tail = 0
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++
  const changes: Change[] = []
  const push = (before: string, after: string, same: boolean) => {
    const last = changes[changes.length - 1]
    if (before === '' && after === '') return
    if (last?.same === same) {
      last.before += before
      last.after += after
    } else changes.push({ before, after, same })
  }
  const same = (text: string) => push(text, text, true)
  same(a.slice(0, head).join(''))
  middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail))
  same(a.slice(a.length - tail).join(''))
  return changes

  function middle(x: string[], y: string[]): void {
    if (x.length > MOST || y.length > MOST) {
      push(x.join(''), y.join(''), false)
      return
    }
    // common[i][j]: length of the longest common subsequence of x from i and y from j.
    const width = y.length + 1
    const common = new Uint16Array((x.length + 1) * width)
    for (let i = x.length - 1; i >= 0; i--)
      for (let j = y.length - 1; j >= 0; j--)
        common[i * width + j] =
          x[i] === y[j]
            ? common[(i + 1) * width + j + 1]! + 1
            : Math.max(common[(i + 1) * width + j]!, common[i * width + j + 1]!)
    let i = 0
    let j = 0
    while (i < x.length || j < y.length) {
      if (i < x.length && j < y.length && x[i] === y[j]) {
        same(x[i]!)
        i++
        j++
      } else if (j === y.length || (i < x.length && common[(i + 1) * width + j]! >= common[i * width + j + 1]!))
        push(x[i++]!, '', false)
      else push('', y[j++]!, false)
    }
  }
}
