// Speculative decoding against decoding one token at a time: the same tokens where it is greedy, the same distribution where it
// samples; the tree of a forward; what an adapter may not change.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { normal } from '../../test/graph/gradient-check.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { random } from '../core/random.ts'
import type { Parameter } from '../core/types.ts'
import { initialLora, loraShapes } from '../models/lora.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { type Constraint, compileConstraint, createVocabulary } from './constraints/index.ts'
import { layOut } from './draft-tree.ts'
import { drawAt, verifyDraft } from './draft-verdict.ts'
import { complete, createEngine, type Engine } from './engine.ts'
import { createForward } from './forward.ts'
import { distribution, pick, type SamplingOptions } from './sampling.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const VOCABULARY = 12
const { model, weights } = tinyLlama({ vocab_size: VOCABULARY, max_position_embeddings: 64 })
const shapes = loraShapes(model, { rank: 2, targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'up_proj'] })

/** An adapter of random values: its drafts are right by chance alone. */
function adapter(): Map<string, Parameter> {
  const parameters = initialLora(shapes, normal(9, [32]).data as Float32Array, 1)
  let seed = 20
  for (const [name, { shape, data }] of parameters)
    if (name.endsWith('lora_B.weight')) data.set(normal(seed++, shape).data as Float32Array)
  return parameters
}

const eosTokenIds = [3]
const MASK = VOCABULARY - 1
let plain: Engine
let engine: Engine
let hybrid: Engine
beforeAll(async () => {
  plain = await createEngine(executor, model, weights, { eosTokenIds })
  engine = await createEngine(executor, model, weights, { eosTokenIds, adapter: adapter() })
  hybrid = await createEngine(executor, model, weights, { eosTokenIds, maskTokenId: MASK, causalContext: true })
})
afterAll(async () => {
  await plain.dispose()
  await engine.dispose()
  await hybrid.dispose()
})

describe('layOut', () => {
  it('shows a token those before it, and a mask its token, those before that and the masks before it', () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 9 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 5 }),
        (start, known, sizes) => {
          const { positions, blocks, ends, rows, masks, groups } = layOut(start, known, sizes)
          const spine = known + sizes.length - 1
          const owner = (i: number) => {
            const group = groups.findIndex(({ row, size }) => rows.indexOf(i) >= row && rows.indexOf(i) < row + size)
            return { token: known - 1 + group, offset: rows.indexOf(i) - (groups[group]?.row ?? 0) }
          }
          expect(masks).toEqual(Array.from({ length: positions.length - spine }, (_, i) => spine + i))
          for (let i = 0; i < positions.length; i++)
            for (let j = 0; j < positions.length; j++) {
              const seen = blocks[j] <= blocks[i] && blocks[i] < ends[j]
              const expected =
                i < spine
                  ? j <= i
                  : j < spine
                    ? j <= owner(i).token
                    : owner(j).token === owner(i).token && owner(j).offset <= owner(i).offset
              expect(seen).toBe(expected)
              if (i >= spine) expect(positions[i]).toBe(start + owner(i).token + 1 + owner(i).offset)
              else expect(positions[i]).toBe(start + i)
            }
        },
      ),
      { seed: 1 },
    ))
})

describe('the gate', () => {
  it('leaves rows without a mask as they are, bit for bit', async () => {
    const base = await createForward(executor, model, weights, [])
    const gated = await createForward(executor, model, weights, [], { adapter: adapter() })
    const ids = [5, 1, 7, 2, 9, 4]
    const tree = layOut(0, ids.length, [3])
    const logitsOf = async (forward: typeof base, masks: readonly number[]) => {
      const cache = forward.createCache()
      const { logits } = await forward.run(cache, {
        ids: [...ids, 0, 0, 0],
        blockSize: tree,
        rows: [0, 1, 2, 3, 4, 5, 6],
        store: 0,
        masks,
        logits: true,
      })
      await cache.free()
      return logits as Float32Array
    }
    const expected = await logitsOf(base, [])
    const actual = await logitsOf(gated, tree.masks)
    const clean = ids.length * VOCABULARY
    expect(actual.subarray(0, clean)).toEqual(expected.subarray(0, clean))
    expect(actual.subarray(clean)).not.toEqual(expected.subarray(clean))
    await base.dispose()
    await gated.dispose()
  })
})

describe('generateSpeculative', () => {
  it('writes what greedy decoding writes, whatever is drafted, and never beyond its limits', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: VOCABULARY - 1 }), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 6 }),
        fc.constantFrom(0, 0.01, 0.1, 0.5, 1),
        async (prompt, maxNewTokens, masks, rowCost) => {
          const expected = await complete(plain.generateAutoregressive(prompt, { maxNewTokens }))
          let final = prompt.length
          const options = { maxNewTokens, masks, rowCost }
          const actual = await complete(engine.generateSpeculative(prompt, options), (step) => {
            expect(step.tokens.map(({ position }) => position)).toEqual(step.tokens.map((_, i) => final + i))
            final = step.final
          })
          expect(actual.ids).toEqual(expected.ids)
          expect(actual.stop).toBe(expected.stop)
          expect(actual.forwards).toBeLessThanOrEqual(expected.forwards)
          expect(final).toBe(prompt.length + actual.ids.length)
        },
      ),
      { numRuns: 40, seed: 3 },
    ))

  it('agrees with greedy decoding under penalties and biases', async () => {
    for (const options of [
      { repetitionPenalty: 1.5 },
      {
        logitBias: new Map([
          [3, -100],
          [7, 2],
        ]),
      },
    ]) {
      const common = { ...options, maxNewTokens: 30 }
      const expected = await complete(plain.generateAutoregressive([5, 1, 7], common))
      const actual = await complete(engine.generateSpeculative([5, 1, 7], { ...common, masks: 3 }))
      expect(actual.ids).toEqual(expected.ids)
    }
  })

  it('writes what greedy decoding writes with masks of the model itself', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: VOCABULARY - 2 }), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 6 }),
        async (prompt, maxNewTokens, masks) => {
          const expected = await complete(hybrid.generateAutoregressive(prompt, { maxNewTokens }))
          const actual = await complete(hybrid.generateSpeculative(prompt, { maxNewTokens, masks }))
          expect(actual.ids).toEqual(expected.ids)
          expect(actual.ids).not.toContain(MASK)
        },
      ),
      { numRuns: 30, seed: 5 },
    ))

  it('writes what greedy decoding writes with drafts that are looked up', async () => {
    let fewer = 0
    for (let trial = 0; trial < 20; trial++) {
      const draw = random(trial, 7)
      const some = Array.from({ length: 6 }, () => draw.uint32() % VOCABULARY)
      const prompt = [...some, ...some, ...some]
      const expected = await complete(plain.generateAutoregressive(prompt, { maxNewTokens: 30 }))
      const actual = await complete(plain.generateSpeculative(prompt, { maxNewTokens: 30, lookup: 1 }))
      expect(actual.ids).toEqual(expected.ids)
      fewer += expected.forwards - actual.forwards
    }
    expect(fewer).toBeGreaterThan(0)
  })

  it('writes the same under load, where fewer positions pay', async () => {
    const draw = random(11, 7)
    const prompts = Array.from({ length: 8 }, () => Array.from({ length: 9 }, () => draw.uint32() % (VOCABULARY - 1)))
    for (const [engine, drafting] of [
      [hybrid, { masks: 4 }],
      [plain, { lookup: 1 }],
    ] as const) {
      const expected = []
      for (const prompt of prompts)
        expected.push(await complete(engine.generateAutoregressive(prompt, { maxNewTokens: 60 })))
      const options = { maxNewTokens: 60, ...drafting }
      const together = await Promise.all(prompts.map((prompt) => complete(engine.generateSpeculative(prompt, options))))
      expect(together.map(({ ids }) => ids)).toEqual(expected.map(({ ids }) => ids))
    }
  })

  it('takes drafts unverified that are together more probable than the threshold', async () => {
    for (const options of [{}, { temperature: 1, seed: 4 }, { logprobs: 2 }]) {
      const all = { ...options, maxNewTokens: 30, masks: 4 }
      let forwards = Number.POSITIVE_INFINITY
      for (const threshold of [0, 0.05, 1]) {
        let final = 2
        const result = await complete(hybrid.generateSpeculative([5, 1], { ...all, threshold }), (step) => {
          expect(step.tokens.map(({ position }) => position)).toEqual(step.tokens.map((_, i) => final + i))
          if ('logprobs' in options) for (const { top } of step.tokens) expect(top?.length).toBe(2)
          final = step.final
        })
        expect(result.ids.length).toBe(final - 2)
        if (threshold === 0 && result.stop === 'length') expect(result.forwards).toBe(Math.ceil(30 / 5))
        expect(result.tpf).toBeLessThanOrEqual(forwards)
        forwards = result.tpf
      }
    }
  })

  it('decodes several texts at a time as alone', async () => {
    const prompts = Array.from({ length: 5 }, (_, i) => [i, i + 1, 2 * i])
    const options = { maxNewTokens: 20, masks: 2 }
    const alone: number[][] = []
    for (const prompt of prompts) alone.push((await complete(engine.generateSpeculative(prompt, options))).ids)
    const together = await Promise.all(prompts.map((prompt) => complete(engine.generateSpeculative(prompt, options))))
    expect(together.map(({ ids }) => ids)).toEqual(alone)
  })

  it('refuses settings that make no sense', () => {
    expect(() => plain.generateSpeculative([1], { maxNewTokens: 1, masks: 2 })).toThrow('masks draft only with')
    expect(() => engine.generateSpeculative([1], { maxNewTokens: 1, masks: 0 })).toThrow('masks')
    expect(() => engine.generateSpeculative([1], { maxNewTokens: 1, masks: 2, rowCost: 2 })).toThrow('rowCost')
    expect(() => engine.generateSpeculative([], { maxNewTokens: 1, masks: 2 })).toThrow('at least one token')
  })
})

/**
 * G = 2 sum O ln(O / E) of counts against expected shares, bins of fewer than 5 expected joined, beside the value that it
 * exceeds with a probability of 1e-4 if the shares are right (Wilson and Hilferty's approximation of chi-square).
 */
function gTest(counts: ReadonlyMap<string, number>, shares: ReadonlyMap<string, number>) {
  const total = [...counts.values()].reduce((a, b) => a + b, 0)
  const bins: [observed: number, expected: number][] = []
  let rest: [number, number] = [0, 0]
  for (const [key, share] of shares) {
    const bin: [number, number] = [counts.get(key) ?? 0, share * total]
    if (bin[1] >= 5) bins.push(bin)
    else rest = [rest[0] + bin[0], rest[1] + bin[1]]
  }
  if (rest[1] > 0) bins.push(rest)
  const g = 2 * bins.reduce((sum, [o, e]) => sum + (o > 0 ? o * Math.log(o / e) : 0), 0)
  const k = bins.length - 1
  return { g, limit: k * (1 - 2 / (9 * k) + 3.719 * Math.sqrt(2 / (9 * k))) ** 3 }
}

describe('sampling', () => {
  it('a verified draft has the distribution of the model, whatever it was drawn from', () => {
    for (let trial = 0; trial < 8; trial++) {
      const draw = random(trial, 1)
      const logits = () => Float32Array.from({ length: 6 }, () => 2 * draw.normal())
      const p = distribution(logits(), { temperature: 0.8, ...(trial % 2 ? { topK: 4 } : {}) })
      const q = distribution(logits(), { temperature: 1, ...(trial > 4 ? { topP: 0.8 } : {}) })
      const counts = new Map<string, number>()
      for (let i = 0; i < 20_000; i++) {
        const at = drawAt(trial, i, 0)
        const { token } = verifyDraft({ token: pick(q, at.draft), from: q }, p, at)
        counts.set(String(token), (counts.get(String(token)) ?? 0) + 1)
      }
      const { g, limit } = gTest(counts, new Map(p.tokens.map((token, i) => [String(token), p.probabilities[i]])))
      expect(g).toBeLessThan(limit)
      expect([...counts.keys()].every((token) => p.tokens.includes(Number(token)))).toBe(true)
    }
  })

  it.each(['adapter', 'masks', 'lookup'])(
    'draws texts of three tokens as the model does, drafts by %s',
    async (source) => {
      const prompt = [5, 1, 7, 2, 5, 1]
      const drafting = source === 'lookup' ? { lookup: 1 } : { masks: 2, lookup: 2 }
      const drafter = { adapter: engine, masks: hybrid, lookup: plain }[source] as Engine
      const sampling = { temperature: 1, topK: 4 }
      const forbidden = source === 'masks' ? [MASK] : []
      const shares = await exactShares(prompt, { sampling, forbidden, most: 3 })
      const { counts } = await drawn(drafter, prompt, { ...sampling, ...drafting, maxNewTokens: 3 })
      expect([...counts.keys()].every((text) => shares.has(text))).toBe(true)
      const { g, limit } = gTest(counts, shares)
      expect(g).toBeLessThan(limit)
    },
  )

  it.each([
    ['alone', { masks: undefined }],
    ['beside those of masks and earlier text', { masks: 2, lookup: 3 }],
  ])('draws texts under a constraint as the model does, with the drafts that it spells, %s', async (_, drafting) => {
    const pieces = ['a', 'b', 'ab', undefined, 'c', 'abc', 'bc', 'x', 'ca', 'cab', 'y', undefined]
    const vocabulary = createVocabulary({
      tokens: pieces.map((text) => (text === undefined ? undefined : new TextEncoder().encode(text))),
      ...{ eosTokenIds, size: VOCABULARY },
    })
    // Behind a choice, the same bytes in several tokenizations; then another choice.
    const constraint = compileConstraint({ type: 'regex', pattern: 'c?abcab[xy]' }, vocabulary)
    const prompt = [5, 1, 7, 2, 5, 1]
    const sampling = { temperature: 1.5 }
    const shares = await exactShares(prompt, { sampling, forbidden: [MASK], most: 6, constraint })
    expect(shares.size).toBeGreaterThan(20)
    const drafter = drafting.masks === undefined ? plain : hybrid
    const { counts, forwards, tokens } = await drawn(drafter, prompt, {
      ...{ ...sampling, ...drafting, maxNewTokens: 6, constraint },
    })
    expect([...counts.keys()].every((text) => shares.has(text))).toBe(true)
    const { g, limit } = gTest(counts, shares)
    expect(g).toBeLessThan(limit)
    expect(forwards).toBeLessThan(tokens)
  })
})

/**
 * The probability of every text of at most `most` tokens behind a prompt, by its ids: from the model's logits after every
 * beginning.
 */
async function exactShares(
  prompt: readonly number[],
  {
    sampling,
    forbidden,
    most,
    constraint,
  }: { sampling: SamplingOptions; forbidden: readonly number[]; most: number; constraint?: Constraint },
): Promise<Map<string, number>> {
  const base = await createForward(executor, model, weights, [])
  const shares = new Map<string, number>()
  async function extend(text: readonly number[], share: number): Promise<void> {
    if (text.length === most || text.at(-1) === eosTokenIds[0]) {
      shares.set(text.join(), share)
      return
    }
    const cache = base.createCache()
    const ids = [...prompt, ...text]
    const result = await base.run(cache, { ids, blockSize: 1, rows: [ids.length - 1], store: 0, logits: true })
    await cache.free()
    const logits = result.logits as Float32Array
    for (const token of forbidden) logits[token] = Number.NEGATIVE_INFINITY
    if (constraint) {
      const tracker = constraint.begin({ maxTokens: most })
      tracker.open(text.length + 1)
      for (const [i, token] of text.entries()) tracker.commit(i, token)
      const allowed = tracker.allowed(text.length)
      for (const token of logits.keys())
        if (!(((allowed[token >>> 5] as number) >>> (token & 31)) & 1)) logits[token] = Number.NEGATIVE_INFINITY
    }
    const { tokens, probabilities } = distribution(logits, sampling)
    for (const [i, token] of tokens.entries()) await extend([...text, token], share * (probabilities[i] as number))
  }
  await extend([], 1)
  await base.dispose()
  return shares
}

/** How often each text is drawn in 1500 draws, and the forwards and tokens that these took. */
async function drawn(
  drafter: Engine,
  prompt: readonly number[],
  options: Parameters<Engine['generateSpeculative']>[1],
): Promise<{ counts: Map<string, number>; forwards: number; tokens: number }> {
  const counts = new Map<string, number>()
  let [forwards, tokens] = [0, 0]
  for (let seed = 0; seed < 1500; seed += 50) {
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        complete(drafter.generateSpeculative(prompt, { ...options, seed: seed + i })),
      ),
    )
    for (const result of results) {
      counts.set(result.ids.join(), (counts.get(result.ids.join()) ?? 0) + 1)
      forwards += result.forwards
      tokens += result.ids.length
    }
  }
  return { counts, forwards, tokens }
}
