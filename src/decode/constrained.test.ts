// Constraints under every strategy and setting of the engine: the text always matches and ends in time.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anyStrategy } from '../../test/decode/settings.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import {
  type ConstraintSource,
  compileConstraint,
  complete,
  createEngine,
  createVocabulary,
  type Engine,
  type GenerateOptions,
} from './index.ts'

const MASK = 39
const EOS = [3, 7]
const { model, weights } = tinyLlama()
const { vocabSize } = model.dimensions
const SPECIAL = [0, 1, 2, ...EOS, MASK]
const PIECES = [...'abc{}[]:,"0123456789', '{"', '":', 'ab', 'true', '"}', '": ', '\\', 'é', '[1', ...'-xyz']
const texts: (string | undefined)[] = []
for (let id = 0; id < vocabSize; id++) texts.push(SPECIAL.includes(id) ? undefined : PIECES[texts.length - count(id)])
function count(id: number): number {
  return SPECIAL.filter((special) => special < id).length
}
const vocabulary = createVocabulary({
  tokens: texts.map((text) => (text === undefined ? undefined : new TextEncoder().encode(text))),
  eosTokenIds: EOS,
})

let executor: Executor
let engine: Engine
let hybrid: Engine
let shifted: Engine

beforeAll(async () => {
  executor = createExecutor({ threads: 1 })
  engine = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS })
  shifted = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS, shift: true })
  hybrid = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS, causalContext: true })
})
afterAll(() => executor.dispose())

const sources: { source: ConstraintSource; matches: (text: string) => boolean }[] = [
  { source: { type: 'regex', pattern: '(ab)*c|b[0-9]{3,}' }, matches: (text) => /^((ab)*c|b[0-9]{3,})$/.test(text) },
  {
    source: { type: 'json_schema', schema: { type: 'array', items: { type: 'integer', minimum: -3 }, maxItems: 4 } },
    matches: (text) => JSON.parse(text).every((value: unknown) => Number.isInteger(value)),
  },
  {
    source: {
      type: 'json_schema',
      schema: { type: 'object', properties: { ab: { type: 'boolean' } }, required: ['ab'] },
    },
    matches: (text) => JSON.parse(text).ab === true,
  },
  { source: { type: 'json_object' }, matches: (text) => typeof JSON.parse(text) === 'object' },
  { source: { type: 'grammar', grammar: 'root ::= "a" root "b" | "x"' }, matches: (text) => /^a*xb*$/.test(text) },
]
const constraints = sources.map(({ source, matches }) => ({
  constraint: compileConstraint(source, vocabulary),
  matches,
}))

const sampling: fc.Arbitrary<Partial<GenerateOptions>> = fc.oneof(
  fc.constant({}),
  fc.record({
    temperature: fc.constantFrom(0.5, 3),
    topK: fc.constantFrom(0, 5),
    topP: fc.constantFrom(0.3, 1),
    seed: fc.nat(),
  }),
  fc.record({ repetitionPenalty: fc.constant(1.5), logprobs: fc.constantFrom(0, 3) }),
)
const settings = fc.record({
  prompt: fc.array(fc.integer({ min: 0, max: MASK - 1 }), { minLength: 1, maxLength: 12 }),
  blockSize: fc.constantFrom(1, 4, 8),
  maxNewTokens: fc.integer({ min: 9, max: 24 }),
  bufferSize: fc.constantFrom(1, 2, 3),
  strategy: anyStrategy,
  sampling,
  which: fc.constantFrom(...constraints),
})

function textOf(ids: readonly number[]): string {
  return ids
    .filter((id) => !EOS.includes(id))
    .map((id) => texts[id] as string)
    .join('')
}

describe('a constraint', () => {
  it('holds in blocks, whatever the strategy', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.boolean(), async ({ prompt, which, strategy, sampling, ...rest }, shift) => {
        const generation = (shift ? shifted : engine).generate(prompt, {
          ...{ ...rest, ...strategy, ...sampling, constraint: which.constraint },
        })
        const result = await complete(generation, ({ tokens }) => {
          for (const { confidence } of tokens) expect(confidence >= 0 && confidence <= 1).toBe(true)
        })
        expect(result.ids.length).toBeLessThanOrEqual(rest.maxNewTokens)
        expect(which.matches(textOf(result.ids)), textOf(result.ids)).toBe(true)
      }),
      { numRuns: 150 },
    )
  })

  it('holds token by token', async () => {
    await fc.assert(
      fc.asyncProperty(settings, async ({ prompt, maxNewTokens, which, sampling }) => {
        const options = { maxNewTokens, ...sampling, constraint: which.constraint }
        const result = await complete(engine.generateAutoregressive(prompt, options))
        expect(which.matches(textOf(result.ids)), textOf(result.ids)).toBe(true)
      }),
      { numRuns: 40 },
    )
  })

  it('holds in drafts, and the text is that of one token at a time', async () => {
    let saved = 0
    await fc.assert(
      fc.asyncProperty(
        settings,
        fc.integer({ min: 0, max: 4 }),
        async ({ prompt, maxNewTokens, which, sampling }, masks) => {
          const options = { maxNewTokens, ...sampling, constraint: which.constraint }
          const drafting = masks > 0 ? { masks } : {}
          const result = await complete(hybrid.generateSpeculative(prompt, { ...options, ...drafting, lookup: 1 }))
          expect(which.matches(textOf(result.ids)), textOf(result.ids)).toBe(true)
          if ('temperature' in sampling) return
          const expected = await complete(hybrid.generateAutoregressive(prompt, options))
          expect(result.ids).toEqual(expected.ids)
          expect(result.stop).toBe(expected.stop)
          saved += expected.forwards - result.forwards
        },
      ),
      { numRuns: 60 },
    )
    expect(saved).toBeGreaterThan(0)
  })

  it('does not change a text that matches anyway', async () => {
    const constraint = compileConstraint({ type: 'regex', pattern: '[\\s\\S]*' }, vocabulary)
    const prompt = [5, 9, 14]
    for (const shift of [false, true]) {
      const run = (options: Partial<GenerateOptions>) =>
        complete(
          (shift ? shifted : engine).generate(prompt, {
            ...{ blockSize: 4, maxNewTokens: 12, threshold: 0.3, ...options },
            logitBias: new Map([0, 1, 2].map((id) => [id, Number.NEGATIVE_INFINITY])),
          }),
        )
      expect((await run({ constraint })).ids).toEqual((await run({})).ids)
    }
  })

  it('takes no longer text than fits, and no bias that forbids all of it', async () => {
    const constraint = compileConstraint({ type: 'regex', pattern: 'xyzxyz' }, vocabulary)
    expect(() => engine.generate([5], { blockSize: 4, maxNewTokens: 5, constraint })).toThrow(
      /takes 6 tokens, but only 5 may be generated; allow at least 6$/,
    )
    const x = texts.indexOf('x')
    const logitBias = new Map(
      texts.flatMap((text, id) => (text === 'x' ? [[id, Number.NEGATIVE_INFINITY] as const] : [])),
    )
    expect(x).toBeGreaterThan(0)
    await expect(
      complete(engine.generate([5], { blockSize: 4, maxNewTokens: 9, constraint, logitBias })),
    ).rejects.toThrow(/logitBias: forbids all tokens/)
  })
})
