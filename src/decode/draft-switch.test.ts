import { describe, expect, it } from 'vitest'
import { createDraftSwitch } from './draft-switch.ts'

describe('drafting under load', () => {
  /** Runs for a while, 10 ms a forward, where a forward brings so many tokens in each way; the share of forwards with drafts. */
  function run(tokens: { drafting: number; plain: number }, sequences = 8, forwards = 4000) {
    let time = 0
    const drafts = createDraftSwitch(() => time)
    let drafting = 0
    for (let i = 0; i < forwards; i++) {
      const way = drafts.drafting() ? 'drafting' : 'plain'
      drafting += Number(way === 'drafting')
      time += 10
      drafts.observe(tokens[way], sequences)
    }
    return drafting / forwards
  }
  it('goes on where it is faster, and ends where it is slower, but for a try now and then', () => {
    expect(run({ drafting: 3, plain: 1 })).toBeGreaterThan(0.9)
    const share = run({ drafting: 1, plain: 3 })
    expect(share).toBeLessThan(0.1)
    expect(share).toBeGreaterThan(0)
  })
  it('tries the slower way less and less often, until texts change', () => {
    const share = (forwards: number) => run({ drafting: 1, plain: 3 }, 8, forwards)
    expect(share(40_000)).toBeLessThan(share(4000) / 2)
  })
  it('is known for each load by itself, and begins in another as it was', () => {
    let time = 0
    const drafts = createDraftSwitch(() => time)
    const write = (sequences: number, brings: { drafting: number; plain: number }, forwards: number) => {
      for (let i = 0; i < forwards; i++) {
        time += 10
        drafts.observe(brings[drafts.drafting() ? 'drafting' : 'plain'], sequences)
      }
    }
    write(32, { drafting: 1, plain: 3 }, 200)
    expect(drafts.drafting()).toBe(false)
    write(4, { drafting: 3, plain: 1 }, 1)
    expect(drafts.drafting()).toBe(false)
    write(4, { drafting: 3, plain: 1 }, 100)
    expect(drafts.drafting()).toBe(true)
    write(32, { drafting: 1, plain: 3 }, 1)
    expect(drafts.drafting()).toBe(false)
  })
  it('does not count pauses', () => {
    let time = 0
    const drafts = createDraftSwitch(() => time)
    for (let i = 0; i < 60; i++) {
      time += 10
      drafts.observe(drafts.drafting() ? 3 : 1, 4)
    }
    expect(drafts.drafting()).toBe(true)
    time += 60_000
    for (let i = 0; i < 10; i++) {
      time += 10
      drafts.observe(3, 4)
    }
    expect(drafts.drafting()).toBe(true)
  })
})
