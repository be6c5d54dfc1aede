// The data of the job "repair", from the speeches beside the tiny model.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  INSTRUCTION,
  noisePercent,
  type RepairRow,
  repairFiles,
  repairRow,
  sentences,
} from '../../scripts/jobs/repair.ts'
import { packaged } from '../../src/checkpoint/names.ts'
import { random } from '../../src/core/random.ts'
import { readTexts } from '../../src/data/synthetic.ts'
import { addNoise, drawFrom, inWords, noiseKinds } from '../../src/tasks/text-noise.ts'

const textsOf = (split: 'train' | 'test') => {
  const file = join(packaged('models'), 'tiny', 'data', `speeches.${split}.jsonl`)
  return sentences(readTexts(readFileSync(file, 'utf8'), file))
}
const clean = textsOf('train')
const seeds = fc.nat()
const noisy = ({ prompt }: RepairRow) => prompt.slice(INSTRUCTION.length + 1)

describe('sentences', () => {
  it('are plain ASCII of 40 to 220 characters, each once', () => {
    expect(clean.length).toBeGreaterThan(500)
    expect(new Set(clean).size).toBe(clean.length)
    for (const text of clean) expect(text).toMatch(/^[A-Z][\x20-\x7e]{38,218}[.?!]$/)
  })

  it('have straight quotes and dashes, and keep numbers whole', () => {
    const text = '\u201cWe paid \u2014 in all \u2014 $3.50 for the Union\u2019s twelve new paper lanterns!'
    expect(sentences([text])).toEqual(["We paid - in all - $3.50 for the Union's twelve new paper lanterns!"])
  })
})

describe('noise', () => {
  it('is the same for the same seed, and another for another', () => {
    fc.assert(
      fc.property(fc.constantFrom(...clean), fc.constantFrom(...noiseKinds), seeds, (text, kind, seed) => {
        const again = () => addNoise(text, kind, drawFrom(random(seed)))
        expect(again()).toBe(again())
      }),
    )
    expect(repairRow(clean[0]!, 1, 0)).toEqual(repairRow(clean[0]!, 1, 0))
    const drawn = Array.from({ length: 20 }, (_, seed) => repairRow(clean[0]!, seed, 0).prompt)
    expect(new Set(drawn).size).toBeGreaterThan(15)
  })

  it('never leaves its characters: ASCII in, ASCII on one line out', () => {
    fc.assert(
      fc.property(fc.constantFrom(...clean), fc.constantFrom(...noiseKinds), seeds, (text, kind, seed) => {
        expect(addNoise(text, kind, drawFrom(random(seed)))).toMatch(/^[\x20-\x7e]*$/)
      }),
    )
  })

  it.each([
    ['keyboard', 6, 9],
    ['ocr', 7, 12],
    ['speech', 6, 16],
  ] as const)('of kind %s makes %d to %d percent of the characters wrong', (kind, low, high) => {
    const rows = clean.map((completion, index): RepairRow => {
      const text = addNoise(completion, kind, drawFrom(random(7, index)))
      return { prompt: `${INSTRUCTION}\n${text}`, completion, noise: kind }
    })
    expect(noisePercent(rows)).toBeGreaterThan(low)
    expect(noisePercent(rows)).toBeLessThan(high)
  })

  it('of speech has neither capitals nor punctuation, and numbers in words', () => {
    const spoken = (text: string) => addNoise(text, 'speech', { uniform: () => 0.99, below: () => 0 })
    expect(spoken('In 1812, we spent $1,250 - or 7%!')).toBe(
      'in one thousand eight hundred twelve we spent one thousand two hundred fifty dollars or seven percent',
    )
  })

  it.each([
    [0, 'zero'],
    [13, 'thirteen'],
    [40, 'forty'],
    [99, 'ninety nine'],
    [305, 'three hundred five'],
    [20_000, 'twenty thousand'],
    [999_999, 'nine hundred ninety nine thousand nine hundred ninety nine'],
  ])('%d in words is %s', (value, words) => {
    expect(inWords(value)).toBe(words)
  })
})

describe('files', () => {
  const shared = 'This one sentence stands in a speech of both sides, word by word.'
  const train = { speeches: [...clean, shared], questions: clean.slice(0, 100).map((text) => `Q: ${text}`) }
  const held = { speeches: [shared, ...textsOf('test')], questions: clean.slice(0, 900).map((text) => `H: ${text}`) }
  const files = repairFiles(train, held, 500)

  it('have the sizes asked for, and no sentence twice', () => {
    expect([...files].map(([name, rows]) => [name, rows.length])).toEqual([
      ['train', 500],
      ['validation', 200],
      ['test-0', 200],
      ['test-1', 200],
      ['test-2', 200],
    ])
    const all = [...files.values()].flat().map(({ completion }) => completion)
    expect(new Set(all).size).toBe(all.length)
    expect(
      repairFiles(train, held, 1e6)
        .get('train')!
        .some(({ completion }) => completion === shared),
    ).toBe(false)
  })

  it('are the same again', () => {
    expect(repairFiles(train, held, 500)).toEqual(files)
  })

  it('hold about one clean row in twenty, and about a tenth of wrong characters', () => {
    const rows = [...files.values()].flat()
    const none = rows.filter(({ noise }) => noise === 'none')
    expect(none.length / rows.length).toBeGreaterThan(0.03)
    expect(none.length / rows.length).toBeLessThan(0.08)
    for (const row of none) expect(noisy(row)).toBe(row.completion)
    expect(noisePercent(rows)).toBeGreaterThan(7)
    expect(noisePercent(rows)).toBeLessThan(12)
  })
})
