import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createLookup, editDistances, LONGEST_WINDOW } from './lookup.ts'

/** Sellers' algorithm, cell by cell. */
function cellByCell(pattern: readonly number[], text: readonly number[], end: number): number[] {
  let column = Array.from({ length: pattern.length + 1 }, (_, i) => i)
  return Array.from({ length: end }, (_, i) => {
    const next = [0]
    for (const [j, symbol] of pattern.entries())
      next.push(Math.min(column[j] + Number(symbol !== text[i]), column[j + 1] + 1, next[j] + 1))
    column = next
    return column[pattern.length]
  })
}

describe('editDistances', () => {
  it('are those of the table, cell by cell, for patterns of every length', () => {
    const symbols = (minLength: number, maxLength: number) =>
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength, maxLength })
    fc.assert(
      fc.property(symbols(1, LONGEST_WINDOW), symbols(0, 90), (pattern, text) => {
        expect([...editDistances(pattern, text, text.length)]).toEqual(cellByCell(pattern, text, text.length))
      }),
      { seed: 1, numRuns: 500 },
    )
  })
})

describe('drafts from the text itself', () => {
  const bytes = new TextEncoder()
  /** A token is a word with the space before it. */
  const words: string[] = []
  const ids = (text: string) =>
    (text.match(/ ?[^ ]+/g) ?? []).map((word) => (words.includes(word) ? words.indexOf(word) : words.push(word) - 1))
  const bytesOf = (id: number) => (words[id] === '</s>' ? undefined : bytes.encode(words[id]))
  function drafts(prompt: string, written: string, options: { window?: number; most?: number } = {}) {
    const lookup = createLookup(ids(prompt), { window: 16, most: 3, bytesOf, ...options })
    lookup.append(ids(written))
    return lookup
      .draft()
      .map(({ token }) => words[token])
      .join('')
  }

  it('go on where the ending stood before', () => {
    expect(drafts('one two three four five six', ' one two')).toBe(' three four five')
    expect(drafts('one two three four', ' one two', { most: 1 })).toBe(' three')
  })
  it('go on where something like the ending stood, right behind what was changed', () => {
    expect(drafts('In tlie fourth hour she colected fifty coins', ' In the')).toBe(' fourth hour she')
    const most = 2
    expect(drafts('In tlie fourth hour she colected fifty coins', ' In the fourth hour she collected', { most })).toBe(
      ' fifty coins',
    )
  })
  it('take the more similar of two passages, then the later one', () => {
    expect(drafts('a green house b a greet mouse c', ' a green house', { most: 1 })).toBe(' b')
    expect(drafts('a house b a house c', ' a house', { most: 1 })).toBe(' c')
  })
  it('come from what was written, too', () => {
    expect(drafts('x', ' the cat sat and the cat', { window: 7, most: 2 })).toBe(' sat and')
  })
  it('are none where nothing is similar or nothing is written', () => {
    expect(drafts('abc def ghi', ' quite another')).toBe('')
    expect(drafts('one two three', '')).toBe('')
    expect(createLookup([], { window: 16, most: 3 }).draft()).toEqual([])
    expect(drafts('one two three', ' one', { most: 0 })).toBe('')
  })
  it('can be asked for behind tokens that are themselves only drafted', () => {
    const lookup = createLookup(ids('In tlie fourth hour she colected fifty coins'), { window: 16, most: 2, bytesOf })
    lookup.append(ids(' In the fourth'))
    const ahead = ids(' hour she collected')
    expect(lookup.draft({ ahead }).map(({ token }) => words[token])).toEqual([' fifty', ' coins'])
    expect(lookup.draft().map(({ token }) => words[token])).toEqual([' hour', ' she'])
  })
  it('do not depend on what was asked before', () => {
    const tokens = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 8 })
    fc.assert(
      fc.property(tokens, fc.array(fc.record({ append: tokens, ahead: tokens }), { maxLength: 5 }), (prompt, steps) => {
        const text = (lookup: ReturnType<typeof createLookup>, ahead: readonly number[]) =>
          lookup.draft({ ahead }).map(({ token }) => token)
        const asked = createLookup(prompt, { window: 4, most: 3 })
        const written: number[] = []
        for (const { append, ahead } of steps) {
          asked.append(append)
          written.push(...append)
          const fresh = (tokens: readonly number[]) => {
            const lookup = createLookup(prompt, { window: 4, most: 3 })
            lookup.append(written)
            return text(lookup, tokens)
          }
          expect(text(asked, [])).toEqual(fresh([]))
          expect(text(asked, ahead)).toEqual(fresh(ahead))
          expect(text(asked, [])).toEqual(fresh([]))
        }
      }),
      { seed: 1, numRuns: 300 },
    )
  })
  it('tell tokens without bytes from each other', () => {
    const lookup = createLookup([7, 1, 8, 2], { window: 4, most: 1 })
    lookup.append([7])
    expect(lookup.draft()[0].token).toBe(1)
    lookup.append([8])
    expect(lookup.draft()[0].token).toBe(2)
  })
  it('say how many are expected to be accepted at best', () => {
    const lookup = createLookup([1, 2, 3, 4, 5, 6, 7, 8], { window: 1, most: 4 })
    lookup.append([1])
    const expected = (drafts: { confidence: number }[]) => {
      let [sum, together] = [0, 1]
      for (const { confidence } of drafts) sum += together *= confidence
      return sum
    }
    expect(lookup.bestExpected).toBeCloseTo(expected(lookup.draft()), 6)
    for (let i = 0; i < 50; i++) for (const draft of lookup.draft()) draft.observe(true)
    expect(lookup.bestExpected).toBeCloseTo(expected(lookup.draft()), 6)
  })
  it('are less likely behind an ending that is too short to say much', () => {
    const text = Array.from({ length: 24 }, (_, i) => i)
    const behind = (count: number) => {
      const lookup = createLookup(text, { window: 16, most: 1 })
      lookup.append(text.slice(0, count))
      return lookup.draft()[0].confidence
    }
    expect(behind(7)).toBeLessThan(behind(8))
    expect(behind(8)).toBe(behind(16))
  })
  it('grow fewer as they are rejected, and are tried again after a while', () => {
    const lookup = createLookup([1, 2, 3, 4, 5, 6, 7, 8], { window: 1, most: 6 })
    lookup.append([1])
    const counts: number[] = []
    for (let i = 0; i < 60; i++) {
      const found = lookup.draft()
      counts.push(found.length)
      found[0]?.observe(false)
    }
    expect(counts[0]).toBe(6)
    expect(counts.slice(20).every((count) => count <= 2)).toBe(true)
    expect(counts.slice(20)).toContain(0)
    expect(counts.slice(20).some((count) => count > 0)).toBe(true)
  })
})
