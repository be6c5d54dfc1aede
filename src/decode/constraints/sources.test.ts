// What sources are refused, and that hostile ones cost little.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UserError } from '../../core/types.ts'
import { type ConstraintSource, compileConstraint, createVocabulary } from './index.ts'

const vocabulary = createVocabulary({
  tokens: [...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), undefined],
  eosTokenIds: [256],
})
const compile = (source: ConstraintSource) => compileConstraint(source, vocabulary)
const regex = (pattern: string) => compile({ type: 'regex', pattern })
const schema = (schema: unknown) => compile({ type: 'json_schema', schema })
const grammar = (grammar: string) => compile({ type: 'grammar', grammar })

/** Whether a text is one of the constraint's. */
function accepts(source: ConstraintSource, text: string): boolean {
  const bytes = new TextEncoder().encode(text)
  const tracker = compile(source).begin({ maxTokens: 2 * bytes.length + 300 })
  tracker.open(bytes.length + 1)
  return [...bytes, 256].every((token, i) => tracker.commit(i, token))
}
const valid = (schema: unknown, ...values: unknown[]) =>
  values.map((value) => accepts({ type: 'json_schema', schema }, JSON.stringify(value)))

describe('regular expressions', () => {
  test.each([
    ['(a)\\1', /at 3: backreferences are not regular: \\1/],
    ['(?<!a)b', /at 0: lookbehind is not supported/],
    ['((?=a)a|b)*', /at 1: lookahead is not supported inside a repetition/],
    ['(?=a)'.repeat(9), /more than 8 lookaheads/],
    ['b(?!^a)', /at 4: \^ and \$ may stand only/],
    ['a(?=b)', /no text satisfies it/],
    ['\\bword', /at 0: word boundaries are not supported/],
    ['(^a)b', /at 1: \^ and \$ may stand only/],
    ['(?i:a)', /at 0: modifiers are not supported/],
    ['a{2', /Incomplete quantifier/],
    ['[', /Unterminated character class/],
    ['a{9999999}', /at 0: repeats more than 1000000 times/],
    [`${'('.repeat(101)}${')'.repeat(101)}`, /nested more than 100 deep/],
    ['[^\\s\\S]', /no text satisfies it/],
    ['x'.repeat(200_000), /more than 100000 characters/],
  ])('%.20s is refused', (pattern, message) => {
    expect(() => regex(pattern)).toThrow(UserError)
    expect(() => regex(pattern)).toThrow(message)
  })

  test('large repetitions are counted, not written out', () => {
    expect(() => regex('(a{1000}){1000}').begin({ maxTokens: 50 })).toThrow(/constraint/)
    const tracker = regex('(xa{0,1000}){0,1000}b').begin({ maxTokens: 50 })
    tracker.open(32)
    expect(tracker.commit(5, 'b'.charCodeAt(0))).toBe(true)
    expect(accepts({ type: 'regex', pattern: '(ab?){300}' }, 'ab'.repeat(300))).toBe(true)
    expect(accepts({ type: 'regex', pattern: '(ab?){300}' }, 'ab'.repeat(299))).toBe(false)
  })
})

describe('JSON schemas', () => {
  test.each<[unknown, RegExp]>([
    [{ not: {} }, /at #: the keyword "not" is not supported/],
    [{ properties: { a: { type: 'strin' } } }, /at #\/properties\/a\/type: unknown type "strin"/],
    [{ properties: { 'a/b': { maxlength: 1 } } }, /at #\/properties\/a~1b: the keyword "maxlength"/],
    [{ type: 'array', uniqueItems: true }, /at #\/uniqueItems: is not supported/],
    [{ type: 'string', format: 'iri' }, /at #\/format: "iri" is not supported/],
    [{ type: 'string', pattern: '(?<=a)' }, /at #\/pattern: regular expression at 0: lookbehind/],
    [{ type: 'number', multipleOf: 0.1 }, /at #\/multipleOf/],
    [{ type: 'object', minProperties: 2 }, /at #\/minProperties/],
    [{ $ref: '#/$defs/x' }, /at #\/\$ref: "#\/\$defs\/x" leads nowhere/],
    [{ $ref: 'https://example.com/x' }, /only references inside the schema/],
    [{ $ref: '#/__proto__' }, /leads nowhere/],
    [{ $ref: '#' }, /references lead in a circle/],
    [{ allOf: [{ $ref: '#' }, { type: 'object' }] }, /references lead in a circle/],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, /at #\/oneOf: a document may be valid against both 0 and 1/],
    [{ properties: { a: { $ref: '#' } }, required: ['a'] }, /no text satisfies it/],
    [{ type: 'string', minLength: 3, maxLength: 2 }, /no text satisfies it/],
    [{ enum: ['a'], minLength: 1 }, /at #\/minLength: is not supported beside enum or const/],
    [{ items: 3 }, /at #\/items: expected an object, true or false, got 3/],
    [{ required: 'a' }, /at #\/required: expected a list of strings/],
    [{ maxLength: -1 }, /at #\/maxLength: expected a whole number/],
    [undefined, /is not JSON/],
    [7, /expected an object, true or false/],
  ])('%j is refused', (source, message) => {
    expect(() => schema(source)).toThrow(UserError)
    expect(() => schema(source)).toThrow(message)
  })

  test('numbers within bounds', () => {
    const bounds = { type: 'number', exclusiveMinimum: -1.25, maximum: 20.5 }
    expect(valid(bounds, -1.24, -1.2, -1, -0.5, 0, 0.001, 7, 19.99, 20.5)).toEqual(Array(9).fill(true))
    expect(valid(bounds, -1.25, -1.3, -2, 20.51, 21, 100)).toEqual(Array(6).fill(false))
    const whole = { type: 'integer', minimum: -12.5, exclusiveMaximum: 305, multipleOf: 3 }
    expect(valid(whole, -12, -3, 0, 3, 99, 303)).toEqual(Array(6).fill(true))
    expect(valid(whole, -15, 1, 305, 306, 3000, 1.5)).toEqual(Array(6).fill(false))
    expect(valid({ type: 'number', exclusiveMinimum: 0 }, 1e-7, 0, -1).slice(1)).toEqual([false, false])
  })

  test('strings: length in code points, escapes, patterns anywhere', () => {
    expect(valid({ type: 'string', minLength: 2, maxLength: 2 }, '😀"', 'a', 'abc')).toEqual([true, false, false])
    expect(accepts({ type: 'json_schema', schema: { type: 'string', maxLength: 1 } }, '"\\ud83d\\ude00"')).toBe(true)
    expect(accepts({ type: 'json_schema', schema: { type: 'string' } }, '"\\ud83d"')).toBe(false)
    expect(valid({ type: 'string', pattern: 'b\n?c' }, 'abc', 'xb\nc"', 'ac')).toEqual([true, true, false])
  })

  test('objects: order of the schema, optional and further properties', () => {
    const open = {
      type: 'object',
      properties: { a: { const: 1 }, b: { const: 2 }, __proto__: {} },
      required: ['b'],
      additionalProperties: { type: 'boolean' },
    }
    expect(valid(open, { a: 1, b: 2 }, { b: 2 }, { b: 2, c: true, d: false })).toEqual([true, true, true])
    expect(valid(open, { a: 1 }, { b: 2, c: 3 }, { b: 2, a: 1 })).toEqual([false, false, false])
    const map = { type: 'object', patternProperties: { '^x': { type: 'null' } }, additionalProperties: { const: 1 } }
    expect(valid(map, {}, { x1: null, y: 1 }, { y: null }, { x: 1 })).toEqual([true, true, false, false])
  })

  test('arrays', () => {
    const tuple = {
      type: 'array',
      prefixItems: [{ const: 1 }, { const: 2 }],
      items: { const: 3 },
      minItems: 1,
      maxItems: 4,
    }
    expect(valid(tuple, [1], [1, 2], [1, 2, 3, 3])).toEqual([true, true, true])
    expect(valid(tuple, [], [2], [1, 3], [1, 2, 3, 3, 3])).toEqual([false, false, false, false])
    expect(valid({ type: 'array', prefixItems: [{ const: 1 }] }, [], [1], [1, 2])).toEqual([true, true, false])
  })

  test('references: recursion and chains', () => {
    const tree = { type: 'array', items: { $ref: '#' } }
    expect(valid(tree, [], [[], [[[]]]], [1])).toEqual([true, true, false])
    const chain = Object.fromEntries(
      Array.from({ length: 2000 }, (_, i) => [
        `d${i}`,
        i === 1999 ? { const: 7 } : { items: { $ref: `#/$defs/d${i + 1}` } },
      ]),
    )
    expect(valid({ $defs: chain, $ref: '#/$defs/d1998' }, [7, 7], [8])).toEqual([true, false])
    const many = Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`p${i}`, { const: i }]))
    expect(valid({ type: 'object', properties: many }, { p3: 3, p1499: 1499 }, { p4: 5 })).toEqual([true, false])
    const tuple = { prefixItems: Array.from({ length: 3000 }, (_, i) => ({ const: i % 7 })) }
    expect(valid(tuple, [0, 1, 2, 3, 4, 5, 6, 0], [0, 0])).toEqual([true, false])
  })
})

describe('grammars', () => {
  test.each([
    ['root ::= "a', /line 1, column 12: the literal does not end/],
    ['root ::= x', /line 1, column 10: there is no rule x/],
    ['a ::= "b"', /no rule root/],
    ['root ::= "a"\nroot ::= "b"', /line 2, column 1: the rule root is defined twice/],
    ['root ::= root "a" | "b"', /"root" begins with itself/],
    ['root ::= [b-a]', /wrong order/],
    ['root ::= "a"{3,2}', /ends before it begins/],
    ['root ::= ("a"', /expected \)/],
    ['root = "a"', /expected ::=/],
    ['root ::= "\\q"', /unknown escape/],
    [`root ::= "a"${'*'.repeat(50_000)}`, /more than 100 repetitions/],
    [`root ::= ${'('.repeat(5000)}`, /nested more than 100 deep/],
  ])('%j is refused', (source, message) => {
    expect(() => grammar(source)).toThrow(UserError)
    expect(() => grammar(source)).toThrow(message)
  })

  test('recursion, groups over lines, classes', () => {
    const source: ConstraintSource = {
      type: 'grammar',
      grammar: 'root ::= (\n  "(" root ")" # nested\n | [^()\\n]\n)* ws\nws ::= [ \\t] ws | ""\n',
    }
    expect(accepts(source, '(a(b)c)() \t ')).toBe(true)
    expect(accepts(source, '(a')).toBe(false)
    expect(accepts({ type: 'grammar', grammar: 'root ::= "\\x41\\u00e9" .{2,3}' }, 'Aéäö')).toBe(true)
  })
})

test('forged sources end in a constraint or a UserError, soon', () => {
  const attempt = (source: ConstraintSource) => {
    try {
      const tracker = compile(source).begin({ maxTokens: 64 })
      tracker.open(12)
      for (const position of [7, 3, 11, 0]) {
        const bits = tracker.allowed(position)
        const word = bits.findIndex((value) => value !== 0)
        tracker.commit(position, 32 * word + 31 - Math.clz32(bits[word]))
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
    }
  }
  const piece = fc.constantFrom(
    ...'ab.()[]{}*+?|^$\\-,09:="#\n ',
    'a{1,999}',
    '(?:',
    '\\p{L}',
    '[^',
    '::=',
    'root',
    '{3}',
  )
  const pattern = fc.array(piece, { maxLength: 30 }).map((parts) => parts.join(''))
  const keyword = fc.constantFrom(
    'type',
    'properties',
    'items',
    'anyOf',
    'oneOf',
    'allOf',
    '$ref',
    'enum',
    'pattern',
    'minItems',
    'maximum',
    'required',
  )
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<unknown>('object', 'string', '#', '#/items', 0, 3, -1.5, null, true, false, '^a{2,90}$'),
      fc.array(tie('any'), { maxLength: 3 }),
      fc.dictionary(keyword, tie('any'), { maxKeys: 4 }),
    ),
  })).any
  fc.assert(
    fc.property(pattern, (pattern) => attempt({ type: 'regex', pattern })),
    { numRuns: 300 },
  )
  fc.assert(
    fc.property(pattern, (body) => attempt({ type: 'grammar', grammar: `root ::= ${body}` })),
    { numRuns: 300 },
  )
  fc.assert(
    fc.property(value, (schema) => attempt({ type: 'json_schema', schema })),
    { numRuns: 300 },
  )
  for (const pattern of [
    '(a|aa)*b',
    '(a?){500}a{500}',
    '(.*a){20}',
    '((a{0,99}){0,99}){0,99}',
    '(\\w+\\s?)+$',
    '.*'.repeat(50),
  ])
    attempt({ type: 'regex', pattern })
})
