// The data of the job "extract", from the records of vega-datasets.
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { extractFiles, extractRow } from '../../scripts/jobs/extract.ts'
import { type DataRecord, type RecordKind, recordKinds, recordsOf } from '../../scripts/jobs/records.ts'
import { schemaOf, wordings } from '../../scripts/jobs/wordings.ts'
import { compileConstraint, createVocabulary } from '../../src/decode/constraints/index.ts'

const records = new Map(recordKinds.map((kind) => [kind, recordsOf(kind)]))
const some = (kind: RecordKind, count: number) =>
  records.get(kind)!.filter((_, i, all) => i % Math.ceil(all.length / count) === 0)
const kinds = fc.constantFrom(...recordKinds)

describe('records', () => {
  it.each([
    ['penguin', 344],
    ['birdstrike', 9972],
    ['airport', 3376],
    ['earthquake', 1707],
    ['weather', 2922],
  ] as const)('of kind %s: %d different ones', (kind, count) => {
    const all = records.get(kind)!
    expect(all).toHaveLength(count)
    expect(new Set(all.map((record) => JSON.stringify(record))).size).toBe(count)
    expect(Object.keys(all[0]!)).toEqual(Object.keys(wordings[kind].fields))
  })

  it('are what the data sets say', () => {
    expect(records.get('penguin')![0]).toEqual({
      ...{ species: 'Adelie', island: 'Torgersen', beak_length_mm: 39.1, beak_depth_mm: 18.7 },
      ...{ flipper_length_mm: 181, body_mass_g: 3750, sex: 'male' },
    })
    expect(records.get('birdstrike')![0]).toEqual({
      ...{ date: '1990-01-08', airport: 'Barksdale Air Force Base Arpt', operator: 'Military', aircraft: 'T-38A' },
      ...{ phase: 'climb', wildlife: 'Turkey vulture', damage: 'none', speed_knots: 300 },
    })
  })
})

describe('JSON', () => {
  const ajv = formats.default(new Ajv2020({ strict: true, allowUnionTypes: true }))
  const vocabulary = createVocabulary({
    tokens: [...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), undefined],
    eosTokenIds: [256],
  })

  it.each(recordKinds)('of kind %s is valid against its schema, compact, with its keys in order', (kind) => {
    const valid = ajv.compile(schemaOf(kind))
    for (const [index, record] of records.get(kind)!.entries()) {
      const { completion } = extractRow(kind, record, 0, index)
      const json = JSON.parse(completion)
      expect(valid(json), `${completion}: ${ajv.errorsText(valid.errors)}`).toBe(true)
      expect(Object.keys(json)).toEqual(Object.keys(wordings[kind].fields))
      expect(JSON.stringify(json)).toBe(completion)
    }
  })

  it.each(recordKinds)('of kind %s can be written under its schema as a constraint', (kind) => {
    const constraint = compileConstraint({ type: 'json_schema', schema: schemaOf(kind) }, vocabulary)
    for (const [index, record] of some(kind, 10).entries()) {
      const bytes = new TextEncoder().encode(extractRow(kind, record, 0, index).completion)
      const tracker = constraint.begin({ maxTokens: 2 * bytes.length + 300 })
      tracker.open(bytes.length + 1)
      expect([...bytes, 256].every((token, i) => tracker.commit(i, token))).toBe(true)
    }
  })
})

describe('descriptions', () => {
  /** A record whose values occur nowhere else: what stands in the text was put there. */
  const marked: Record<string, string | number> = {
    ...{ airport: 'Zairport', operator: 'Zoperator', aircraft: 'Zaircraft', wildlife: 'Zwildlife', name: 'Zname' },
    ...{ code: 'Zcode', city: 'Zcity', state: 'Zstate', place: 'Zplace', species: 'Zspecies', island: 'Zisland' },
    ...{ sex: 'Zsex', type: 'Ztype', condition: 'Zcondition', phase: 'Zphase', damage: 'Zdamage' },
    ...{ beak_length_mm: 901.1, beak_depth_mm: 902.2, flipper_length_mm: 903, body_mass_g: 904, speed_knots: 905 },
    ...{ latitude: 906.6, longitude: 907.7, magnitude: 908.8, depth_km: 909.9, stations: 910, high_c: 911.1 },
    ...{ low_c: 912.2, precipitation_mm: 913.3, wind_m_s: 914.4 },
  }

  it('say what the JSON says and nothing more', () => {
    fc.assert(
      fc.property(kinds, fc.nat(), fc.nat(), (kind, seed, index) => {
        const keys = Object.keys(wordings[kind].fields)
        const record: DataRecord = Object.fromEntries(keys.map((key) => [key, marked[key] ?? null]))
        const { prompt, completion } = extractRow(kind, record, seed, index)
        const text = prompt.slice(prompt.indexOf('\n'))
        const json = JSON.parse(completion)
        for (const key of keys.filter((key) => key in marked))
          expect(text.includes(String(marked[key]))).toBe(json[key] === marked[key])
        expect(Object.values(json).filter((value) => value !== null).length).toBeGreaterThanOrEqual(2)
      }),
      { numRuns: 500 },
    )
  })

  it('are the same for the same seed, and vary over seeds', () => {
    for (const kind of recordKinds) {
      const record = records.get(kind)![5]!
      expect(extractRow(kind, record, 3, 4)).toEqual(extractRow(kind, record, 3, 4))
      const texts = Array.from({ length: 50 }, (_, seed) => extractRow(kind, record, seed, 0).prompt)
      expect(new Set(texts).size).toBeGreaterThan(45)
    }
  })

  it('are plain ASCII of two lines without a gap in a template', () => {
    for (const kind of recordKinds)
      for (const [index, record] of some(kind, 200).entries()) {
        const { prompt } = extractRow(kind, record, 0, index)
        expect(prompt).toMatch(/^[\x20-\x7e]+\n[\x20-\x7e]+$/)
        expect(prompt).not.toMatch(/[{}]|undefined|NaN|null/)
      }
  })

  it('write dates in four ways, which are ISO in JSON', () => {
    const record: DataRecord = { city: 'Seattle', date: '2012-03-04', condition: null, high_c: null, low_c: null }
    const texts = Array.from({ length: 80 }, (_, seed) => extractRow('weather', record, seed, 0))
    for (const way of ['2012-03-04', 'March 4, 2012', '4 March 2012', 'Mar 4, 2012'])
      expect(texts.some(({ prompt }) => prompt.includes(way))).toBe(true)
    expect(new Set(texts.map(({ completion }) => JSON.parse(completion).date))).toEqual(new Set(['2012-03-04']))
  })

  it('write places in degrees with a sign or a direction', () => {
    const record: DataRecord = { code: null, name: null, city: null, state: null, latitude: 40.5, longitude: -73.25 }
    const texts = Array.from({ length: 40 }, (_, seed) => extractRow('airport', record, seed, 0).prompt)
    for (const way of ['-73.25', '73.25 degrees west', '40.5 degrees north'])
      expect(texts.some((text) => text.includes(way))).toBe(true)
  })
})

describe('files', () => {
  const files = extractFiles(records, 3000)

  it('have the sizes asked for, every kind in each', () => {
    expect([...files].map(([name, rows]) => [name, rows.length])).toEqual([
      ['train', 3000],
      ['validation', 200],
      ['test-0', 200],
      ['test-1', 200],
      ['test-2', 200],
    ])
    for (const rows of files.values()) expect(new Set(rows.map(({ kind }) => kind)).size).toBe(recordKinds.length)
  })

  it('share no JSON with training, and none among those held out', () => {
    const train = new Set(
      extractFiles(records, 1e6)
        .get('train')!
        .map(({ completion }) => completion),
    )
    const held = [...files].flatMap(([name, rows]) =>
      name === 'train' ? [] : rows.map(({ completion }) => completion),
    )
    expect(new Set(held).size).toBe(800)
    expect(held.filter((completion) => train.has(completion))).toEqual([])
  })

  it('are the same again', () => {
    expect(extractFiles(records, 3000)).toEqual(files)
  })

  it('are refused where records are too few', () => {
    expect(() => extractFiles(new Map([['penguin', records.get('penguin')!]]))).toThrow('to hold out')
  })
})
