import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compareVersions, parseVersion } from './version.ts'

// In the order of PEP 440.
const ordered = [
  ['1.0.dev1'],
  ['1.0a1.dev1'],
  ['1.0a1', '1.0.alpha1', '1.0-a.1', 'v1.0a1'],
  ['1.0a2'],
  ['1.0b2.post345.dev456'],
  ['1.0b2.post345'],
  ['1.0rc1', '1.0c1', '1.0-pre1', '1.0_preview_1'],
  ['1.0', '1', '1.0.0', ' 1.0 '],
  ['1.0+abc.5'],
  ['1.0+abc.7'],
  ['1.0+5'],
  ['1.0.post1.dev2'],
  ['1.0.post1', '1.0-1', '1.0.rev1', '1.0-r1'],
  ['1.1'],
  ['1.10'],
  ['2.0'],
  ['2026.1'],
  ['1!0.1'],
]

describe('versions', () => {
  it('stand in order, however they are written', () => {
    const all = ordered.flatMap((same, rank) => same.map((text) => ({ version: parseVersion(text)!, rank })))
    expect(all.every(({ version }) => version !== undefined)).toBe(true)
    fc.assert(
      fc.property(fc.constantFrom(...all), fc.constantFrom(...all), (a, b) => {
        expect(Math.sign(compareVersions(a.version, b.version))).toBe(Math.sign(a.rank - b.rank))
      }),
      { numRuns: 1000 },
    )
  })

  it('are pre-releases or not', () => {
    const pre = ['1.0.dev1', '1.0a1', '1.0rc1', '1.0.post1.dev2']
    expect(pre.map((text) => parseVersion(text)?.isPrerelease)).toEqual(pre.map(() => true))
    expect(['1.0', '1.0.post1', '1.0+local'].map((text) => parseVersion(text)?.isPrerelease)).toEqual([
      false,
      false,
      false,
    ])
  })

  it.each(['', 'x', '1.x', '1.0-', '1..0', '1.0+', '==1', '1.*'])('%j is none', (text) => {
    expect(parseVersion(text)).toBeUndefined()
  })
})
