// Constraints that are followed in turns: the same texts as at once, in pieces however slow they are.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UserError } from '../../core/types.ts'
import { type ConstraintSource, compileConstraint, createVocabulary, type Tracker, type Turns } from './index.ts'

const EOS = 256
const PIECES = ['aa', 'ab', 'abab', 'the ', '":', ', "', 'xyz', '0123']
const vocabulary = createVocabulary({
  tokens: [
    ...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)),
    undefined,
    ...PIECES.map((piece) => new TextEncoder().encode(piece)),
  ],
  eosTokenIds: [EOS],
})
const compile = (source: ConstraintSource) => compileConstraint(source, vocabulary)

/** Turns of so many looks at the clock each; counts them. */
function counted(looks: number): Turns & { given: number } {
  const turns = {
    given: 0,
    async next() {
      turns.given++
      let left = looks
      // Whoever else waits goes first.
      await new Promise((resolve) => setImmediate(resolve))
      return { over: () => --left < 0, end() {} }
    },
  }
  return turns
}

/** Sources with many readings, states, ranges or ways; each is slow in its own way. */
const slow: ConstraintSource[] = [
  { type: 'regex', pattern: '([ab]*a[ab]{9}|x){2,50}' },
  { type: 'regex', pattern: '((a|[a-z]|ab){1,20}){1,20}' },
  { type: 'regex', pattern: '(\\p{L}|\\p{N}){1,40}' },
  { type: 'grammar', grammar: 'root ::= s{1,9}\ns ::= [a-z] s [a-z] | [a-z] | " "' },
  {
    type: 'json_schema',
    schema: { type: 'array', items: { anyOf: [{ pattern: '^[a-z]*x[a-z]{4}$', type: 'string' }, { type: 'object' }] } },
  },
]

type Move = { kind: 'allowed' | 'commit' | 'suggest' | 'clear' | 'spelled'; position: number; token: number }
const moves = fc.array(
  fc.record({
    kind: fc.constantFrom('allowed', 'commit', 'commit', 'suggest', 'clear', 'spelled'),
    position: fc.nat(11),
    token: fc.oneof(fc.constantFrom(...Buffer.from('ab x"[]{}')), fc.integer({ min: 0, max: 264 })),
  }),
  { maxLength: 12 },
) as fc.Arbitrary<Move[]>

async function follow(tracker: Tracker, asked: readonly Move[]): Promise<unknown[]> {
  tracker.open(12)
  const told: unknown[] = []
  for (const { kind, position, token } of asked) {
    if (kind === 'suggest' || kind === 'clear') tracker[kind](position, token)
    else if (kind === 'spelled') told.push(await tracker.inTurns(() => tracker.spelled(8)))
    else told.push(await tracker.inTurns(() => tracker[kind](position, token)))
  }
  return told
}

describe('a constraint that is followed in turns', () => {
  test('offers what it offers at once, however short they are', async () => {
    const begun = slow.map((source) => compile(source))
    await fc.assert(
      fc.asyncProperty(fc.nat(slow.length - 1), moves, fc.integer({ min: 0, max: 3 }), async (which, asked, looks) => {
        const atOnce = await follow(begun[which]!.begin({ maxTokens: 40 }), asked)
        const inTurns = await compile(slow[which]!).inTurns(counted(looks))
        expect(await follow(inTurns.begin({ maxTokens: 40 }), asked)).toEqual(atOnce)
      }),
      { numRuns: 40 },
    )
  })

  test('is worked on in many turns where it is slow, by texts side by side too', async () => {
    for (const source of slow) {
      const shared = compile(source)
      const texts = [counted(0), counted(0)]
      const asked: Move[] = [{ kind: 'allowed', position: 3, token: 0 }]
      const told = await Promise.all(
        texts.map(async (turns) => follow((await shared.inTurns(turns)).begin({ maxTokens: 40 }), asked)),
      )
      expect(told[0]).toEqual(told[1])
      expect(texts[0]!.given + texts[1]!.given).toBeGreaterThan(20)
    }
  })

  test('is refused in turns, and again at once', async () => {
    const many = `(b|${'a?'.repeat(900)}){1,300}`
    const constraint = compile({ type: 'regex', pattern: many })
    const turns = counted(0)
    const refusal = await constraint.inTurns(turns).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(UserError)
    expect(turns.given).toBeGreaterThan(20)
    const before = turns.given
    expect(await constraint.inTurns(turns).catch((error: unknown) => error)).toBe(refusal)
    expect(turns.given).toBe(before)
  })

  test('ends where there are no more turns', async () => {
    const gone = new Error('the client has left')
    const turns: Turns = { next: () => Promise.reject(gone) }
    await expect(compile({ type: 'json_object' }).inTurns(turns)).rejects.toBe(gone)
  })
})
