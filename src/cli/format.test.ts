import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bar, bytes, count, decimals, duration, percent, progressLine, table } from './format.ts'

describe('format', () => {
  it('shortens counts', () => {
    expect([0, 950, 999, 1000, 12_345, 999_499, 999_501, 4_000_000, 2e9].map(count)).toEqual([
      '0',
      '950',
      '999',
      '1.00k',
      '12.3k',
      '999k',
      '1.00M',
      '4.00M',
      '2.00G',
    ])
    expect(count(Number.NaN)).toBe('-')
  })

  it('shortens bytes and times', () => {
    expect([0, 1023, 1024, 98_566_144, 5e12].map(bytes)).toEqual(['0 B', '1023 B', '1.0 KiB', '94.0 MiB', '4.5 TiB'])
    expect([7, 59.6, 151, 4000, Number.POSITIVE_INFINITY].map(duration)).toEqual([
      '7 s',
      '1:00',
      '2:31',
      '1:06:40',
      '-',
    ])
  })

  it('writes a dash where there is no number', () => {
    expect([decimals(undefined, 2), decimals(Number.NaN, 2), percent(undefined)]).toEqual(['-', '-', '-'])
    expect([decimals(1.234, 2), percent(0.935)]).toEqual(['1.23', '93.5 %'])
  })

  it('fills a bar of constant width', () => {
    fc.assert(
      fc.property(fc.double({ min: -1, max: 2, noNaN: true }), fc.integer({ min: 1, max: 60 }), (share, width) => {
        expect([...bar(share, width)]).toHaveLength(width)
      }),
    )
    expect(bar(0.5, 4)).toBe('██░░')
    expect(bar(1, 3)).toBe('███')
  })

  it('keeps a bar and its text within the width', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 90 }), fc.integer({ min: 2, max: 130 }), (text, width) => {
        expect(progressLine(0.4, text, width, (shown) => shown).length).toBeLessThan(width)
      }),
    )
    expect(progressLine(0.5, 'a.whl  1 of 2', 24, (shown) => shown)).toBe('████▌░░░░ a.whl  1 of 2')
    expect(progressLine(0.5, 'a-very-long-name.whl  1 of 2', 20, (shown) => shown)).toBe('a-very-lo…l  1 of 2')
  })

  it('aligns numbers to the right', () => {
    expect(
      table([
        ['name', 'n'],
        ['a', '1'],
        ['bc', '22'],
      ]),
    ).toBe('name   n\na      1\nbc    22')
  })
})
