import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultRules } from './default-rules.ts'
import { createFilter, type Filter } from './filter.ts'
import { defaultDetectors } from './index.ts'
import { MAX_HELD } from './pattern.ts'
import { createPii } from './pii.ts'
import { createRules, type Rule } from './rules.ts'
import { createWords } from './words.ts'

const rule = (entry: Partial<Rule> & Pick<Rule, 'id' | 'action'>): Rule => ({
  category: 'test',
  case_sensitive: false,
  score: 1,
  ...entry,
})

const rules = createRules([
  rule({ id: 'titan', action: 'block', words: ['project titan', 'titanic'] }),
  rule({ id: 'code', action: 'redact', pattern: '\\b[A-Z]{2,4}-\\d{2,6}\\b', replacement: '<code>' }),
  rule({ id: 'cheap', action: 'flag', words: ['cheap', 'straße'] }),
])
const full = createFilter({
  detectors: [createWords(), createRules(defaultRules), rules, createPii({ country: 'US' })],
  block: ['hate', 'self-harm/intent', 'sexual'],
})

const withClassifier = createFilter({
  detectors: [...(await defaultDetectors()), rules, createPii({ country: 'US' })],
  block: ['hate', 'self-harm/intent', 'sexual'],
})

function inPieces(filter: Filter, text: string, cuts: readonly number[]) {
  const stream = filter.stream()
  const places = [0, ...[...cuts].map((cut) => cut % (text.length + 1)).sort((a, b) => a - b), text.length]
  const parts = places.slice(1).map((end, i) => stream.push(text.slice(places[i], end)))
  parts.push(stream.end())
  return {
    parts: parts.map((part) => part.text),
    text: parts.map((part) => part.text).join(''),
    blocked: parts.find((part) => part.blocked)?.blocked?.rule,
    rules: parts.flatMap((part) => part.findings.map((finding) => finding.rule)),
    scores: stream.scores(),
  }
}

const piece = fc.oneof(
  fc.constantFrom(
    ...[
      'the project titan',
      'project  ti',
      'tanic ',
      'AB-12',
      '-345',
      '\\u0070roject ',
      '\\u00',
      '66',
      '\\\\n',
      '\\',
      ' ',
      'cheap',
      'straße',
      'cocktail ',
      'cock',
      'tail',
    ],
    ...[
      'fuuu',
      'ck you',
      'sh1',
      't ',
      'd!ck',
      'fａg',
      'got ',
      'sex ',
      'anne@',
      'example.org',
      '4111 1111 ',
      '1111 1111',
    ],
    ...[
      'DE89 3704 0044 ',
      '0532 0130 00',
      '192.168.',
      '1.10',
      '(212) ',
      '555-0123',
      '+44 20 7946 0958',
      ' 2026-11-24 ',
    ],
    ...['i want to ', 'kill myself', 'tomorrow. ', 'äöü😀', ' ', '\n', 'a', '1'],
  ),
  fc.string({ maxLength: 5 }),
)

test.each([
  ['words and rules', full],
  ['a classifier, too', withClassifier],
])('a text in pieces is judged as the same text at once, by %s', (_, filter) => {
  const text = fc.array(piece, { maxLength: 40 }).map((parts) => parts.join(''))
  fc.assert(
    fc.property(text, fc.array(fc.nat(200), { maxLength: 30 }), (whole, cuts) => {
      const { parts: _, ...once } = inPieces(filter, whole, [])
      const { parts: __, ...pieces } = inPieces(filter, whole, cuts)
      expect(pieces).toEqual(once)
    }),
    { numRuns: 300, seed: 3 },
  )
})

test('nothing of a match is passed on before it is decided', () => {
  const stream = createFilter({ detectors: [rules] }).stream()
  expect(stream.push('see Project T').text).toBe('see ')
  expect(stream.push('it').text).toBe('')
  // Another word after all.
  expect(stream.push('ian, ').text).toBe('Project Titian, ')
  expect(stream.push('then project').text).toBe('then ')
  const { text, blocked } = stream.push(' titan.')
  expect({ text, rule: blocked?.rule }).toEqual({ text: '', rule: 'titan' })
  expect(stream.push('more').text).toBe('')
})

test('every character at a time gives nothing of what is blocked away', () => {
  const text = 'we talk of Project Titan here'
  const { text: passed, blocked } = inPieces(
    full,
    text,
    [...text].map((_, i) => i),
  )
  expect(passed).toBe('we talk of ')
  expect(blocked).toBe('titan')
})

test('words are whole words, in any script', async () => {
  const flags = async (text: string) =>
    (await full.judge(text)).findings.filter(({ rule: id }) => id === 'cheap').length
  expect(await flags('CHEAP, straße')).toBe(2)
  expect(await flags('cheapest straßen überstraße')).toBe(0)
})

test('scores add up over an answer until they block', async () => {
  const filter = createFilter({ detectors: [createWords()], block: ['sexual'] })
  // One clinical word is none of our business, several are.
  expect((await filter.judge('safe sex is taught')).blocked).toBeUndefined()
  const { text, blocked, scores } = await filter.judge('sex, penis and vagina')
  expect(text).toBe('sex, ')
  expect(blocked?.rule).toBe('word:penis')
  expect(scores.get('sexual')).toBeCloseTo(0.64)
})

test('look-alikes, digits and repeated letters do not hide a word; words that contain it are no match', async () => {
  const filter = createFilter({ detectors: [createWords()] })
  const found = async (text: string) => (await filter.judge(text)).findings.map(({ rule: id }) => id)
  for (const text of ['sh1t', 'ѕhit', 'shiiiiit', 'SHIT'])
    expect(new Set(await found(text)), text).toEqual(new Set(['word:shit']))
  expect(await found('cocktails in Scunthorpe, a class on assessment')).toEqual([])
})

test('personal data is found by form and check digits, and replaced', async () => {
  const filter = createFilter({ detectors: [createPii({ country: 'US' })] })
  const redacted = async (text: string) => (await filter.judge(text)).text
  expect(await redacted('write to anne.b@mail.example.org, or call (212) 736-5000.')).toBe(
    'write to [EMAIL], or call [PHONE].',
  )
  expect(await redacted('order 12 4111 1111 1111 1111 12')).toBe('order 12 [CREDIT_CARD] 12')
  expect(await redacted('order 4111 1111 1111 1112')).toBe('order 4111 1111 1111 1112')
  expect(await redacted('to DE89 3704 0044 0532 0130 00 today')).toBe('to [IBAN] today')
  expect(await redacted('to DE89 3704 0044 0532 0130 01 today')).toBe('to DE89 3704 0044 0532 0130 01 today')
  expect(await redacted('from 10.0.0.7 and 2001:db8::17, version 1.2.3')).toBe(
    'from [IP_ADDRESS] and [IP_ADDRESS], version 1.2.3',
  )
  expect(await redacted('+44 20 7946 0958 on 2026-11-24 at 12:30:15')).toBe('[PHONE] on 2026-11-24 at 12:30:15')
  expect(await redacted('std::vector of 1234567 items')).toBe('std::vector of 1234567 items')
})

test('a pattern that never ends holds up a bounded text', () => {
  const stream = createFilter({
    detectors: [createRules([rule({ id: 'all', action: 'block', pattern: 'x[^!]*!' })])],
  }).stream()
  const text = `x${'😀'.repeat(MAX_HELD)}`
  const passed = stream.push(text).text
  expect(passed.length).toBeGreaterThanOrEqual(text.length - MAX_HELD - 1)
  expect(passed).toBe(new TextDecoder().decode(new TextEncoder().encode(passed)))
  expect(passed + stream.end().text).toBe(text)
})

test('a long text is judged in little time per character', async () => {
  const text = 'What a lovely day it is, said Anne to the other 12 people. '.repeat(2000)
  const { text: passed, blocked } = await full.judge(text)
  expect(passed).toBe(text)
  expect(blocked).toBeUndefined()
})

test('escapes are judged by what they stand for', async () => {
  const judged = async (text: string) => {
    const { text: shown, blocked } = await full.judge(text)
    return blocked ? blocked.rule : shown
  }
  expect(await judged('{"a": "\\u0070roject\\ntitan"}')).toBe('titan')
  // JSON within JSON.
  expect(await judged('{"a": "{\\"b\\": \\"\\\\u0070roject titan\\"}"}')).toBe('titan')
  expect(await judged('{"mail": "anne\\u0040example.org"}')).toBe('{"mail": "[EMAIL]"}')
  expect(await judged('a backslash \\ stays, \\u00 too')).toBe('a backslash \\ stays, \\u00 too')
})

test('who has gone is not judged any further', async () => {
  const gone = new AbortController()
  const judged = full.judge('555-123-4567 '.repeat(10_000), { signal: gone.signal })
  gone.abort(new Error('gone'))
  await expect(judged).rejects.toThrow('gone')
})
