import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { describe, expect, test } from 'vitest'
import { randomSchema } from '../../../test/random-schema.ts'
import { type Random, random } from '../../core/random.ts'
import {
  type Constraint,
  type ConstraintSource,
  compileConstraint,
  createVocabulary,
  type Vocabulary,
} from './index.ts'

const utf8 = new TextEncoder()
const PIECES = [
  '{"',
  '":',
  '": ',
  '", "',
  '"}',
  '"},',
  '},',
  ']}',
  '[{"',
  ', ',
  '\\"',
  '\\u00',
  'true',
  'false',
  'null',
  'name',
  'na',
  '12',
  '00',
  '-1',
  'foo',
  'bar',
  'aa',
  'é',
  ' é',
  '😀',
  'ée',
  '"kind',
  '": "',
  '  ',
  '",',
  'id',
  '": 1',
  '}}',
  ']]',
]
// Tokens may cut characters.
const CUTS = [
  [0x61, 0xc3],
  [0xf0, 0x9f],
  [0x98, 0x80, 0x22],
  [0xa9, 0x22],
]
const EOS = [300, 310]

/** Bytes and some pieces. Ids 290 to 319 are special, and the model's output is larger than the vocabulary. */
const bytesAndPieces = vocabulary([
  ...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)),
  ...PIECES.slice(0, 34).map((piece) => utf8.encode(piece)),
  ...Array<undefined>(30).fill(undefined),
  ...PIECES.slice(34).map((piece) => utf8.encode(piece)),
  ...CUTS.map((bytes) => Uint8Array.from(bytes)),
])
/** Nothing but ASCII and `é`. */
const few = vocabulary([
  ...Array.from({ length: 95 }, (_, i) => Uint8Array.of(32 + i)),
  ...Array<undefined>(230).fill(undefined),
  utf8.encode('é'),
])

function vocabulary(tokens: (Uint8Array | undefined)[]): Vocabulary {
  return createVocabulary({ tokens, eosTokenIds: EOS, size: tokens.length + 7 })
}

function members(bits: Uint32Array): number[] {
  const found: number[] = []
  for (const [word, value] of bits.entries())
    for (let bit = 0; value !== 0 && bit < 32; bit++) if ((value >>> bit) & 1) found.push(32 * word + bit)
  return found
}

interface Play {
  vocabulary: Vocabulary
  maxTokens: number
  /** Largest block whose positions are decided in a random order. */
  block: number
  /** Also makes positions holes again, and changes tokens. */
  edits?: boolean
}

/** A text of random allowed tokens, its blocks filled in random order. */
function play(constraint: Constraint, draw: Random, { vocabulary, maxTokens, block, edits }: Play): string {
  const tracker = constraint.begin({ maxTokens })
  const text: number[] = []
  for (let start = 0; start < maxTokens && !text.some((id) => EOS.includes(id)); ) {
    const size = 1 + draw.integer(block)
    tracker.open(size)
    const holes = draw.shuffle(Array.from({ length: size }, (_, i) => start + i))
    const filled: number[] = []
    const put = (position: number) => {
      const allowed = members(tracker.allowed(position))
      if (allowed.length === 0) throw new Error(`nothing is allowed at ${position}`)
      // A model does not write at random: what it suggests is sometimes what is allowed.
      const token = allowed[draw.integer(allowed.length)]
      if (!tracker.commit(position, token)) throw new Error(`${token} is not allowed at ${position} after all`)
      text[position] = token
    }
    while (holes.length > 0) {
      for (const position of holes) if (draw.integer(3) === 0) tracker.suggest(position, draw.integer(256))
      const position = holes.pop()!
      put(position)
      filled.push(position)
      if (edits && draw.integer(3) === 0) put(filled[draw.integer(filled.length)])
      if (edits && draw.integer(4) === 0) {
        const [again] = filled.splice(draw.integer(filled.length), 1)
        tracker.clear(again)
        holes.push(again)
        draw.shuffle(holes)
      }
    }
    start += size
    tracker.settle(start)
  }
  const generated = text.slice(0, maxTokens)
  const end = generated.findIndex((id) => EOS.includes(id))
  const bytes = generated.slice(0, end === -1 ? maxTokens : end).flatMap((id) => [...vocabulary.bytes(id)!])
  return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes))
}

const ajv = new Ajv2020({ strict: false, ownProperties: true })
addFormats.default(ajv)

describe('random tokens in a random order', () => {
  const patterns = [
    '(foo|ba+r)[0-9]{2,5}é?',
    '\\d{3}-\\d{4}',
    '[^\\x00-\\x1f]{0,20}',
    '(a|aa|aaa){3,40}b?',
    '(ab{2,}c|[é-ü😀-😂]{1,3})*x',
    '.*"(true|false)".*',
    '^\\p{Lu}\\p{Ll}+( \\p{Lu}\\p{Ll}+)?$',
    '^a?$|^b+$|c',
    '((a{2}){2,3}|b){2}',
    '[\\s\\S]{5,}',
    '(x?){200}y',
  ]
  test.each(patterns)('text matches /%s/', (pattern) => {
    const constraint = compileConstraint({ type: 'regex', pattern }, bytesAndPieces)
    const check = new RegExp(`^(?:${pattern})$`, 'u')
    for (let seed = 0; seed < 12; seed++) {
      const draw = random(1, seed)
      const text = play(constraint, draw, {
        vocabulary: bytesAndPieces,
        maxTokens: 12 + draw.integer(20),
        block: 16,
        edits: seed % 2 === 0,
      })
      expect(text).toMatch(check)
    }
  })

  test('500 random schemas: every text is valid and ends in time', () => {
    for (let seed = 0; seed < 500; seed++) {
      const draw = random(2, seed)
      const schema = randomSchema(draw)
      const constraint = compileConstraint({ type: 'json_schema', schema }, bytesAndPieces)
      const text = play(constraint, draw, {
        vocabulary: bytesAndPieces,
        maxTokens: 120,
        block: 1 + draw.integer(24),
        edits: seed % 5 === 0,
      })
      const valid = ajv.validate(schema, JSON.parse(text))
      expect(valid, `${JSON.stringify(schema)}\n${text}\n${ajv.errorsText()}`).toBe(true)
    }
  })

  test('any JSON object, and texts of a grammar', () => {
    const object = compileConstraint({ type: 'json_object' }, bytesAndPieces)
    const sums = compileConstraint(
      {
        type: 'grammar',
        grammar: 'root ::= sum\nsum ::= term ([-+] term)* # comment\nterm ::= [0-9]{1,3} | "(" sum ")"\n',
      },
      bytesAndPieces,
    )
    for (let seed = 0; seed < 20; seed++) {
      const draw = random(3, seed)
      const settings = { vocabulary: bytesAndPieces, maxTokens: 40, block: 40, edits: true }
      expect(JSON.parse(play(object, draw, settings))).toBeTypeOf('object')
      const text = play(sums, draw, settings)
      expect(text).toMatch(/^[-+0-9()]+$/)
      expect(Number.isFinite(new Function(`return ${text.replace(/\b0+(?=\d)/g, '')}`)())).toBe(true)
    }
  })

  test('bytes that no token holds alone', () => {
    const constraint = compileConstraint({ type: 'regex', pattern: '[à-ü]{2}|[a-c]é+' }, few)
    for (let seed = 0; seed < 20; seed++)
      expect(play(constraint, random(4, seed), { vocabulary: few, maxTokens: 6, block: 6 })).toMatch(/^(éé|[abc]é+)$/)
  })
})

describe('tracker', () => {
  const begin = (source: ConstraintSource, maxTokens: number, vocabulary = bytesAndPieces) =>
    compileConstraint(source, vocabulary).begin({ maxTokens })
  const id = (text: string) => 256 + PIECES.indexOf(text)
  const code = (text: string) => text.charCodeAt(0)

  test('a token far behind decides what may stand before it', () => {
    const tracker = begin({ type: 'regex', pattern: 'ab*c|xy*z' }, 5)
    tracker.open(5)
    expect(members(tracker.allowed(0))).toEqual([code('a'), code('x')])
    expect(tracker.commit(3, code('z'))).toBe(true)
    expect(members(tracker.allowed(0))).toEqual([code('x')])
    expect(members(tracker.allowed(1))).toEqual([code('y')])
    expect(members(tracker.allowed(4))).toEqual(EOS)
    expect(tracker.commit(1, code('b'))).toBe(false)
    tracker.clear(3)
    expect(tracker.commit(1, code('b'))).toBe(true)
    expect(members(tracker.allowed(0))).toEqual([code('a')])
  })

  test('the last tokens lead to the end', () => {
    const tracker = begin({ type: 'regex', pattern: 'a+(bcd)+' }, 5)
    tracker.open(5)
    expect(members(tracker.allowed(0))).toEqual([code('a'), id('aa')].sort((a, b) => a - b))
    for (const [i, letter] of [...'aa'].entries()) expect(tracker.commit(i, code(letter))).toBe(true)
    expect(members(tracker.allowed(2))).toEqual([code('b')])
  })

  test('counts the tokens of the shortest text by the vocabulary, not its bytes', () => {
    expect(begin({ type: 'regex', pattern: 'name": true' }, 3)).toBeDefined()
    expect(() => begin({ type: 'regex', pattern: 'name": true' }, 2)).toThrow(/takes 3 tokens, but only 2/)
  })

  test('positions beyond the last hold anything', () => {
    const tracker = begin({ type: 'regex', pattern: 'ab' }, 2)
    tracker.open(4)
    expect(tracker.commit(3, 7)).toBe(true)
    expect(members(tracker.allowed(1))).toEqual([code('b')])
    expect(members(tracker.allowed(2)).length).toBeGreaterThan(300)
  })

  test('spells what must follow, in the longest tokens', () => {
    const spelled = (source: ConstraintSource, before: number[] = [], most = 9) => {
      const tracker = begin(source, 30)
      tracker.open(before.length)
      for (const [i, token] of before.entries()) expect(tracker.commit(i, token)).toBe(true)
      tracker.settle(before.length)
      return tracker.spelled(most).map((token) => (token < 256 ? String.fromCharCode(token) : PIECES[token - 256]))
    }
    expect(spelled({ type: 'regex', pattern: '\\{"name": (true|12)' })).toEqual(['{"', 'name', '": '])
    expect(spelled({ type: 'regex', pattern: 'namename' }, [], 1)).toEqual(['name'])
    // Where the text may end, and where two bytes may follow, nothing must.
    expect(spelled({ type: 'regex', pattern: '(foo)?' })).toEqual([])
    expect(spelled({ type: 'regex', pattern: 'foo|bar' })).toEqual([])
    expect(spelled({ type: 'regex', pattern: 'foo|bar' }, [code('b')])).toEqual(['a', 'r'])
    const schema = { type: 'object', properties: { kind: { type: 'integer' } }, required: ['kind'] }
    expect(spelled({ type: 'json_schema', schema }, [code('{')])).toEqual(['"kind', '":'])
  })

  test('needs an EOS token', () => {
    const without = createVocabulary({ tokens: [utf8.encode('a')], eosTokenIds: [] })
    expect(() => compileConstraint({ type: 'regex', pattern: 'a' }, without)).toThrow(/no EOS token/)
  })
})
