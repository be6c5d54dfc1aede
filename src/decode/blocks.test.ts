// The state machine under every strategy and setting: what holds whatever a model predicts.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anyStrategy } from '../../test/decode/settings.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward, type Forward, type ForwardRequest } from './forward.ts'
import { type BlockOptions, complete, createEngine, type DecodeStep, type Engine, type Generation } from './index.ts'
import { expectedConfirmed } from './self-verify.ts'
import { resolveSettings, settingNames, strategyNames } from './settings.ts'
import { createStrategy } from './strategies/index.ts'

const MASK = 39
const EOS = [3, 7, 11, 20, 31]
const { model, weights } = tinyLlama()
const { vocabSize, maxPositions } = model.dimensions
let executor: Executor
let engine: Engine
let endless: Engine
let shifted: Engine

beforeAll(async () => {
  executor = createExecutor({ threads: 1 })
  engine = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS })
  endless = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: [] })
  shifted = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS, shift: true })
})
afterAll(() => executor.dispose())

const randomTokens = (length: number, seed: number): number[] => {
  const draw = random(seed, length)
  return Array.from({ length }, () => draw.integer(MASK))
}

async function collect(generation: Generation) {
  const steps: DecodeStep[] = []
  const result = await complete(generation, (step) => steps.push(step))
  return { steps, result }
}

const share = fc.constantFrom(0, 0.2, 0.5, 0.9, 1)
const sampling = fc.oneof(
  fc.constant({}),
  fc.record({
    temperature: fc.constantFrom(0.5, 1, 3),
    topK: fc.constantFrom(0, 1, 5),
    topP: fc.constantFrom(0.3, 1),
    minP: fc.constantFrom(0, 0.2),
    seed: fc.nat(),
  }),
  fc.record({
    repetitionPenalty: fc.constantFrom(0.8, 1.5),
    logitBias: fc.constant(new Map([[5, 3] as const, [6, Number.NEGATIVE_INFINITY] as const])),
    logprobs: fc.constantFrom(0, 3),
  }),
)
const settings = fc
  .record({
    prompt: fc.integer({ min: 1, max: 20 }).chain((length) => fc.nat().map((seed) => randomTokens(length, seed))),
    blockSize: fc.constantFrom(1, 3, 4, 8),
    maxNewTokens: fc.integer({ min: 1, max: 24 }),
    bufferSize: fc.constantFrom(1, 1, 2, 3),
    activation: fc.constantFrom(0, 0.5, 1),
    reuse: fc.boolean(),
    logitScale: fc.constantFrom(1, 4),
    strategy: anyStrategy,
    sampling,
  })
  .map(({ prompt, strategy, sampling, activation, reuse, ...rest }) => ({
    prompt,
    options: {
      ...{ ...rest, ...strategy, ...sampling },
      ...(rest.bufferSize > 1 ? { activation } : {}),
      ...(createStrategy(strategy.strategy!, resolveSettings(strategy)).edits ? {} : { reuse }),
    } as BlockOptions,
  }))

describe('whatever the strategy and the settings', () => {
  it('no mask is left, final tokens do not change, the steps add up to the result, and EOS ends it', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.boolean(), async ({ prompt, options }, shift) => {
        const { steps, result } = await collect((shift ? shifted : engine).generate(prompt, options))
        const text = new Map<number, number>()
        let final = prompt.length
        for (const [i, step] of steps.entries()) {
          expect(step.step).toBe(i)
          expect(step.final).toBeGreaterThanOrEqual(final)
          const positions = step.tokens.map(({ position }) => position)
          expect(positions).toEqual([...new Set(positions)].sort((a, b) => a - b))
          for (const { position, token, confidence, block, edited } of step.tokens) {
            expect(position).toBeGreaterThanOrEqual(final)
            expect(block).toBe(Math.floor(position / options.blockSize))
            expect(token).not.toBe(MASK)
            if (options.logitBias) expect(token).not.toBe(6)
            expect(edited ?? false).toBe(text.has(position))
            if (edited) expect(options.strategy).toBe('edit')
            expect(confidence).toBeGreaterThan(0)
            expect(confidence).toBeLessThanOrEqual(1)
            text.set(position, token)
          }
          final = step.final
          for (let position = prompt.length; position < final; position++) expect(text.has(position)).toBe(true)
        }
        expect(result.forwards).toBe(steps.length)
        expect(final).toBe(prompt.length + result.ids.length)
        expect(result.ids).toEqual(result.ids.map((_, i) => text.get(prompt.length + i)))
        expect(result.tokens).toBe(result.ids.length)
        const eos = result.ids.findIndex((id) => EOS.includes(id))
        expect(result.stop).toBe(eos === -1 ? 'length' : 'eos')
        expect(eos).toBeOneOf([-1, result.ids.length - 1])
        if (eos === -1) expect(result.ids).toHaveLength(Math.min(options.maxNewTokens!, maxPositions - prompt.length))
      }),
      { numRuns: 150, seed: 3 },
    )
  })

  it('the same again, alone or among others', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(settings, { minLength: 2, maxLength: 5 }), async (requests) => {
        const alone = []
        for (const { prompt, options } of requests) alone.push(await complete(engine.generate(prompt, options)))
        const together = await Promise.all(
          requests.map(({ prompt, options }) => complete(engine.generate(prompt, options))),
        )
        for (const [i, { ids, forwards, stop }] of together.entries())
          expect({ ids, forwards, stop }).toEqual({
            ids: alone[i].ids,
            forwards: alone[i].forwards,
            stop: alone[i].stop,
          })
      }),
      { numRuns: 25, seed: 4 },
    )
  })
})

describe('settings that nobody meant', () => {
  it('give an error that names them, or a text', async () => {
    const odd = fc.constantFrom<unknown>(0, 1, -1, 0.5, 2, 1e9, Number.NaN, Number.POSITIVE_INFINITY, undefined, true)
    const names = fc.constantFrom<unknown>(...strategyNames, 'none', 'toString', 3)
    const one = fc.tuple(fc.constantFrom(...settingNames, 'logprobs'), odd)
    const wild = fc
      .tuple(names, fc.array(one, { maxLength: 3 }))
      .map(([strategy, pairs]): Record<string, unknown> => ({ strategy, ...Object.fromEntries(pairs) }))
    let worked = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: -1, max: vocabSize }), { maxLength: 6 }),
        wild,
        async (prompt, options) => {
          const settings = { blockSize: 4, ...options, maxNewTokens: options.maxNewTokens ?? 3 } as BlockOptions
          try {
            const { result } = await collect(engine.generate(prompt, settings))
            expect(result.ids.length).toBeGreaterThan(0)
            worked++
          } catch (error) {
            expect(error).toBeInstanceOf(UserError)
          }
        },
      ),
      { numRuns: 800, seed: 6 },
    )
    expect(worked).toBeGreaterThan(50)
  })
})

describe('a buffer of several blocks', () => {
  it('refines later blocks before the first is finished, in fewer forwards', async () => {
    const options = { blockSize: 4, maxNewTokens: 32, threshold: 0.3, logitScale: 4, bufferSize: 1 }
    const single = await collect(endless.generate(randomTokens(5, 1), options))
    const several = await collect(endless.generate(randomTokens(5, 1), { ...options, bufferSize: 3, activation: 0 }))
    expect(several.result.forwards).toBeLessThan(single.result.forwards)
    const blocks = several.steps.map(({ tokens }) => new Set(tokens.map(({ block }) => block)).size)
    expect(Math.max(...blocks)).toBeGreaterThan(1)
  })

  it('whose next block joins only when the one before is full is no buffer', async () => {
    for (const seed of [1, 2, 3]) {
      const options = { blockSize: 4, maxNewTokens: 21, threshold: 0.4, logitScale: 4, bufferSize: 1 }
      const single = await collect(endless.generate(randomTokens(6, seed), options))
      const buffered = await collect(
        endless.generate(randomTokens(6, seed), { ...options, bufferSize: 2, activation: 1 }),
      )
      expect(buffered.steps).toEqual(single.steps)
    }
  })
})

describe('rows that are not computed again', () => {
  it('change nothing where every block takes one or two steps', async () => {
    for (const engine of [endless, shifted])
      for (const seed of [1, 2, 3]) {
        const options = { blockSize: 4, maxNewTokens: 30, threshold: 1, stepsPerBlock: 1, bufferSize: 1 }
        const prompt = randomTokens(6, seed)
        const plain = await collect(engine.generate(prompt, options))
        const reused = await collect(engine.generate(prompt, { ...options, reuse: true }))
        expect(reused.result.ids).toEqual(plain.result.ids)
        expect(reused.result.forwards).toBe(plain.result.forwards)
      }
  })
})

describe('rows that are not computed again, of a model that predicts each token from the one before it', () => {
  it('are none that a later block still needs', async () => {
    const sizes = fc.record({
      length: fc.integer({ min: 1, max: 20 }),
      bufferSize: fc.integer({ min: 1, max: 3 }),
      activation: share,
      threshold: share,
      seed: fc.nat(1000),
    })
    await fc.assert(
      fc.asyncProperty(sizes, async ({ length, seed, ...options }) => {
        const settings = { ...options, activation: options.bufferSize > 1 ? options.activation : undefined }
        const request = { blockSize: 4, maxNewTokens: 17, logitScale: 4, reuse: true, ...settings }
        const { steps, result } = await collect(shifted.generate(randomTokens(length, seed), request))
        const written = steps.flatMap(({ tokens }) => tokens.map(({ position }) => position))
        for (let i = 0; i < result.ids.length; i++) expect(written).toContain(length + i)
      }),
      { numRuns: 60, seed: 4 },
    )
  })
})

describe('self-verification', () => {
  it('of one block that holds everything gives what block size 1 gives, in fewer forwards where the draft is right', async () => {
    for (const engine of [endless, shifted])
      for (let seed = 0; seed < 8; seed++) {
        const prompt = randomTokens(5, seed)
        const options = { maxNewTokens: 20, logitScale: 4, bufferSize: 1 }
        const causal = await complete(engine.generate(prompt, { ...options, blockSize: 1 }))
        const verified = await collect(engine.generate(prompt, { ...options, blockSize: 32, selfVerify: 0 }))
        expect(verified.result.ids).toEqual(causal.ids)
        expect(verified.steps.map(({ step }) => step)).toEqual(verified.steps.map((_, i) => i))
        expect(verified.result.forwards).toBe(verified.steps.length)
      }
  })

  it('leaves the decision to the strategy where too little is expected', async () => {
    const options = { blockSize: 8, maxNewTokens: 24, threshold: 0.3, logitScale: 4, bufferSize: 1 }
    const plain = await collect(endless.generate(randomTokens(5, 1), options))
    const never = await collect(endless.generate(randomTokens(5, 1), { ...options, selfVerify: 1000 }))
    expect(never.steps).toEqual(plain.steps)
    expect(expectedConfirmed([1, 0.5, 0.5])).toBeCloseTo(1 + 0.5 + 0.25)
  })

  it('is for greedy decoding of one block at a time', () => {
    const says = (options: Partial<BlockOptions>, message: string) =>
      expect(() => endless.generate([1], { blockSize: 4, maxNewTokens: 4, selfVerify: 1, ...options })).toThrow(message)
    says({ strategy: 'edit' }, 'selfVerify, strategy: self-verification is for greedy decoding of one block at a time')
    says({ bufferSize: 2 }, 'selfVerify, bufferSize: ')
    says({ reuse: true }, 'selfVerify, reuse: ')
    says({ temperature: 1 }, 'leave out sampling')
    says({ selfVerify: -1 }, 'selfVerify: expected a number of at least 0')
  })
})

describe('editing', () => {
  it('ends with a block that the model would not change, or after its steps', async () => {
    const options = { blockSize: 4, logitScale: 2, strategy: 'edit' as const, maxPostSteps: 10 }
    let settled = 0
    for (let seed = 0; seed < 12; seed++) {
      const prompt = randomTokens(8, seed)
      const { steps, result } = await collect(endless.generate(prompt, { ...options, maxNewTokens: 4 }))
      expect(steps.at(-1)?.final).toBe(12)
      const filling = steps.findIndex(({ tokens }) => tokens.every(({ edited }) => edited))
      const post = steps.slice(filling)
      expect(post.length).toBeLessThanOrEqual(10)
      if (steps.at(-1)?.tokens.length !== 0) {
        expect(post).toHaveLength(10)
        continue
      }
      settled++
      const { strategy: _, ...again } = options
      const rewritten = await collect(endless.rewrite([...prompt, ...result.ids], { ...again, from: 8 }))
      expect(rewritten.result.ids).toEqual([...prompt, ...result.ids])
      expect(rewritten.steps).toHaveLength(1)
    }
    expect(settled).toBeGreaterThan(0)
  })

  it('rewrites a text from a position on and leaves what is before', async () => {
    const text = randomTokens(19, 6)
    const { steps, result } = await collect(
      endless.rewrite(text, { blockSize: 8, from: 5, threshold: 0.5, editingThreshold: 0 }),
    )
    expect(result.ids).toHaveLength(19)
    expect(result.ids.slice(0, 5)).toEqual(text.slice(0, 5))
    expect(result.ids).not.toEqual(text)
    for (const { tokens } of steps) for (const token of tokens) expect(token.edited).toBe(true)
    expect(() => endless.rewrite(text, { blockSize: 8, from: 19 })).toThrow('nothing to rewrite from position 19 of 19')
  })
})

describe('soft states', () => {
  const { hiddenSize } = model.dimensions
  const embeddingName = 'model.embed_tokens.weight'
  const embedding = (token: number) =>
    weights.get(embeddingName)!.data.subarray(token * hiddenSize, (token + 1) * hiddenSize)
  const length = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((sum, value) => sum + value ** 2, 0))

  /** p E(token) + (1 - p) E(mask), as long as p |E(token)| + (1 - p) |E(mask)|. */
  function softVector(token: number, p: number): number[] {
    const [own, mask] = [embedding(token), embedding(MASK)]
    const mixed = Array.from(own, (value, i) => p * value + (1 - p) * mask[i])
    const wanted = p * length(own) + (1 - p) * length(mask)
    return mixed.map((value) => (value * wanted) / length(mixed))
  }

  /** The model with further tokens, from id `vocabSize` on, whose embeddings are these vectors and which are never predicted. */
  async function withTokens(vectors: readonly number[][]): Promise<Forward> {
    const more = tinyLlama({ vocab_size: vocabSize + vectors.length })
    const extended = new Map(weights)
    for (const name of [embeddingName, 'lm_head.weight']) {
      const data = new Float32Array((vocabSize + vectors.length) * hiddenSize)
      data.set(weights.get(name)!.data)
      if (name === embeddingName) data.set(vectors.flat(), vocabSize * hiddenSize)
      extended.set(name, { shape: [vocabSize + vectors.length, hiddenSize], data })
    }
    return createForward(executor, more.model, extended, [MASK, ...vectors.map((_, i) => vocabSize + i)])
  }

  it('are mixtures of a token and the mask; a share of 0 is the token', async () => {
    const ids = [1, 2, 7, 4, MASK]
    const run = async (forward: Forward, given: number[], maskShares?: ForwardRequest['maskShares']) => {
      const cache = forward.createCache()
      const { logits } = await forward.run(cache, {
        ...{ ids: given, blockSize: 8, rows: [0, 2, 4], store: 0, logits: true, maskShares },
      })
      await cache.free()
      await forward.dispose()
      return [...logits!]
    }
    const plain = () => createForward(executor, model, weights, [])
    const soft = () => createForward(executor, model, weights, [], { softMask: MASK })
    expect(await run(await soft(), ids)).toEqual(await run(await plain(), ids))
    expect(await run(await soft(), ids, new Map([[2, 0]]))).toEqual(await run(await plain(), ids))
    const mixed = await run(await soft(), ids, new Map([[2, 0.3]]))
    const other = await run(await withTokens([softVector(7, 0.7)]), [1, 2, vocabSize, 4, MASK])
    const logitsOf = (row: number) => other.slice(row * (vocabSize + 1), row * (vocabSize + 1) + vocabSize)
    const expected = [0, 1, 2].flatMap(logitsOf)
    for (const [i, value] of mixed.entries()) expect(value).toBeCloseTo(expected[i], 4)
  })

  /**
   * DMax's decoding written out: a forward over the whole text for every step, embeddings that are vectors. Gives the tokens
   * after each step.
   */
  async function reference(prompt: number[], blockSize: number, blocks: number, threshold: number, logitScale: number) {
    const text = [...prompt]
    const states: number[][] = []
    while (text.length < blocks * blockSize) {
      const start = text.length - (text.length % blockSize)
      const active: number[] = []
      while (text.length < start + blockSize) active.push(text.push(MASK) - 1)
      const vectors = new Map<number, number[]>()
      for (let step = 0; step < blockSize; step++) {
        const forward = await withTokens([...vectors.values()])
        const replaced = [...vectors.keys()]
        const cache = forward.createCache()
        const { tokens, confidence } = await forward.run(cache, {
          ids: text.map((id, i) => (replaced.includes(i) ? vocabSize + replaced.indexOf(i) : id)),
          ...{ blockSize, rows: active, store: 0, logitScale },
        })
        await cache.free()
        await forward.dispose()
        const wasMask = active.map((i) => text[i] === MASK)
        const low = wasMask.map((mask, k) => mask && confidence[k] < threshold)
        const candidates = active.map((_, k) => wasMask[k] && !low.slice(0, k + 1).includes(true))
        if (!candidates.includes(true) && wasMask.includes(true)) candidates[wasMask.indexOf(true)] = true
        let changed = false
        for (const [k, i] of active.entries()) {
          if (wasMask[k] && !candidates[k]) continue
          if (text[i] !== tokens[k]) changed = true
          text[i] = tokens[k]
        }
        states.push([...text])
        if (active.every((_, k) => confidence[k] >= 0.9) || !changed) break
        vectors.clear()
        for (const [k, i] of active.entries())
          if (text[i] !== MASK) vectors.set(i, softVector(tokens[k], confidence[k]))
      }
    }
    return states
  }

  // Blocks are small: under a model of random weights, steps of soft states make differences of rounding larger each time.
  it.each([
    { threshold: 0, logitScale: 2, length: 5 },
    { threshold: 0.3, logitScale: 3, length: 8 },
    { threshold: 0.5, logitScale: 4, length: 2 },
    { threshold: 0.6, logitScale: 8, length: 3 },
    { threshold: 0.9, logitScale: 20, length: 11 },
  ])('decode step by step as DMax does: %o', async ({ threshold, logitScale, length }) => {
    const blockSize = 5
    const trained = await createEngine(executor, model, weights, {
      ...{ maskTokenId: MASK, eosTokenIds: [], softStates: true },
    })
    const prompt = randomTokens(length, length)
    const maxNewTokens = 5 * blockSize - length
    const options = { blockSize, maxNewTokens, strategy: 'soft' as const, threshold, logitScale }
    const { steps } = await collect(trained.generate(prompt, options))
    const text = [...prompt, ...Array.from({ length: maxNewTokens }, () => MASK)]
    const states = steps.map(({ tokens }) => {
      for (const { position, token } of tokens) text[position] = token
      return [...text]
    })
    const expected = await reference(prompt, blockSize, 5, threshold, logitScale)
    expect(states.map((state, i) => state.slice(0, expected[i]?.length))).toEqual(expected)
    await trained.dispose()
  })

  it('decode to the end, several blocks at a time too, and are for models trained with them', async () => {
    const trained = await createEngine(executor, model, weights, {
      ...{ maskTokenId: MASK, eosTokenIds: EOS, softStates: true },
    })
    for (let seed = 0; seed < 10; seed++) {
      const options = { blockSize: 8, maxNewTokens: 20, strategy: 'soft' as const, logitScale: 2, bufferSize: 2 }
      const { steps, result } = await collect(trained.generate(randomTokens(5, seed), options))
      expect(result.ids).not.toContain(MASK)
      expect(steps.at(-1)?.final).toBe(5 + result.ids.length)
    }
    expect(() => engine.generate([1], { blockSize: 4, maxNewTokens: 4, strategy: 'soft' })).toThrow('soft_states')
    await trained.dispose()
  })
})

describe('filling', () => {
  const hole = fc.integer({ min: 1, max: 39 })
  it('fills all holes and leaves the rest, wherever they are', async () => {
    const cases = fc.record({
      length: fc.constant(40),
      holes: fc.uniqueArray(hole, { minLength: 1, maxLength: 12 }),
      seed: fc.nat(),
      blockSize: fc.constantFrom(1, 4, 8, 64),
      rightContext: fc.constantFrom(undefined, 0, 5, 100),
      strategy: anyStrategy,
    })
    await fc.assert(
      fc.asyncProperty(cases, fc.boolean(), async ({ length, holes, seed, strategy, rightContext, ...rest }, shift) => {
        const text = randomTokens(length, seed)
        const given = text.map((id, i) => (holes.includes(i) ? MASK : id))
        const options = { ...rest, ...strategy, ...(rightContext === undefined ? {} : { rightContext }) }
        const { result } = await collect((shift ? shifted : engine).fill(given, options))
        expect(result.ids).toHaveLength(length)
        for (const [i, id] of result.ids.entries())
          if (holes.includes(i)) expect(id).not.toBe(MASK)
          else expect(id).toBe(text[i])
      }),
      { numRuns: 40, seed: 5 },
    )
  })

  it('sees what is behind the hole in its block, and nothing further', async () => {
    const text = randomTokens(32, 7)
    const fill = async (ids: number[], rightContext: number) => {
      const options = { blockSize: 4, rightContext, threshold: 0, logprobs: 0 }
      const { steps } = await collect(endless.fill(ids, options))
      return steps.flatMap(({ tokens }) => tokens.map(({ token, logprob }) => [token, logprob]))
    }
    const given = text.map((id, i) => (i === 9 ? MASK : id))
    const changed = given.map((id, i) => (i === 18 ? (id + 1) % MASK : id))
    expect(await fill(changed, 0)).toEqual(await fill(given, 0))
    expect(await fill(changed, 12)).not.toEqual(await fill(given, 12))
  })

  it('says what is wrong', () => {
    expect(() => engine.fill([1, 2], { blockSize: 4 })).toThrow('nothing to fill')
    expect(() => shifted.fill([MASK, 2], { blockSize: 4 })).toThrow('the first token cannot be a hole')
    expect(() => engine.fill([1, vocabSize], { blockSize: 4 })).toThrow(`token id ${vocabSize}`)
  })
})

describe('prompts that begin like an earlier text', () => {
  it('are not computed again, and give the same tokens', async () => {
    const keeping = await createEngine(executor, model, weights, {
      maskTokenId: MASK,
      eosTokenIds: [],
      keepPrefixes: 2,
    })
    const options = { blockSize: 4, maxNewTokens: 9, threshold: 0.3, logitScale: 4 }
    const prompt = randomTokens(30, 8)
    const first = await complete(keeping.generate(prompt, options))
    expect(first.cachedTokens).toBe(0)
    const longer = [...prompt, ...first.ids, ...randomTokens(6, 9)]
    const second = await complete(keeping.generate(longer, options))
    expect(second.cachedTokens).toBeGreaterThanOrEqual(32)
    expect(second.ids).toEqual((await complete(endless.generate(longer, options))).ids)
    // Another group shares nothing, and a coarser step less.
    const sharing = (group: string, step: number) => keeping.generate(longer, { ...options, sharing: { group, step } })
    expect((await complete(sharing('other', 1))).cachedTokens).toBe(0)
    expect((await complete(sharing('', 24))).cachedTokens).toBe(24)
    // Another block size sees other keys and values.
    expect((await complete(keeping.generate(longer, { ...options, blockSize: 8 }))).cachedTokens).toBe(0)
    const next = await complete(keeping.generateAutoregressive(longer, { maxNewTokens: 3 }))
    expect(next.cachedTokens).toBe(0)
    expect((await complete(keeping.generateAutoregressive(longer, { maxNewTokens: 3 }))).cachedTokens).toBe(44)
    await keeping.dispose()
  })

  it('are rewritten like any others', async () => {
    for (const shift of [false, true]) {
      const options = { maskTokenId: MASK, eosTokenIds: [], shift }
      const keeping = await createEngine(executor, model, weights, { ...options, keepPrefixes: 2 })
      const plain = await createEngine(executor, model, weights, options)
      const prompt = randomTokens(13, 12)
      const { ids } = await complete(keeping.generate(prompt, { blockSize: 4, maxNewTokens: 9 }))
      const text = [...prompt, ...ids]
      for (const from of [0, 4, 9, 16, 17]) {
        const request = { blockSize: 4, from, logitScale: 4, editingThreshold: 0.2 }
        const { ids: rewritten, cachedTokens } = await complete(keeping.rewrite(text, request))
        expect(rewritten).toEqual((await complete(plain.rewrite(text, request))).ids)
        expect(cachedTokens).toBeLessThanOrEqual(from)
      }
      await keeping.dispose()
      await plain.dispose()
    }
  })

  it('share with texts that are being generated', async () => {
    const prompt = randomTokens(40, 10)
    const options = { blockSize: 4, maxNewTokens: 12, threshold: 0.3, logitScale: 4 }
    const others = [1, 2, 3].map((seed) => [...prompt.slice(0, 29), ...randomTokens(7, seed)])
    const alone = []
    for (const other of others) alone.push((await complete(endless.generate(other, options))).ids)
    const leading = endless.generate(prompt, options)
    await leading.next()
    const together = await Promise.all(others.map((other) => complete(endless.generate(other, options))))
    expect(together.map(({ ids }) => ids)).toEqual(alone)
    for (const { cachedTokens } of together) expect(cachedTokens).toBe(28)
    await leading.return(undefined as never)
  })
})
