import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createForward, type Forward } from './forward.ts'
import {
  type BlockOptions,
  type CommittedToken,
  complete,
  createEngine,
  type Engine,
  type Generation,
} from './index.ts'
import { createStrategy } from './strategies/index.ts'

const MASK = 39
const EOS = [3, 7, 11, 20, 31]

const { model, weights } = tinyLlama()
const { vocabSize, maxPositions } = model.dimensions
/** Buffers of the executor that are allocated now. */
const buffers = new Set<string>()
let executor: Executor
let endless: Engine
let ending: Engine
let shifted: Engine
let forward: Forward

beforeAll(async () => {
  const plain = createExecutor({ threads: 1 })
  executor = {
    ...plain,
    allocate(name, dtype, content) {
      buffers.add(name)
      return plain.allocate(name, dtype, content)
    },
    resize(names, ...content) {
      for (const name of names) buffers.add(name)
      return plain.resize(names, ...content)
    },
    free(...names) {
      for (const name of names) buffers.delete(name)
      return plain.free(...names)
    },
  }
  endless = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: [] })
  ending = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: EOS })
  shifted = await createEngine(executor, model, weights, { maskTokenId: MASK, eosTokenIds: [], shift: true })
  forward = await createForward(executor, model, weights, [MASK])
})

afterAll(() => executor.dispose())

const randomPrompt = (length: number, seed = 0): number[] => {
  const draw = random(seed, length)
  return Array.from({ length }, () => draw.integer(MASK))
}

/** One block at a time by the plain rule: what the references here compute. */
const plain = { strategy: 'threshold', bufferSize: 1 } as const

async function run(engine: Engine, prompt: readonly number[], options: BlockOptions) {
  return collect(engine.generate(prompt, { ...plain, ...options }))
}

type Streamed = CommittedToken & { step: number }

async function collect(generation: Generation) {
  const stream: Streamed[] = []
  const result = await complete(generation, ({ step, tokens }) =>
    stream.push(...tokens.map((token) => ({ ...token, step }))),
  )
  return { ...result, stream }
}

/**
 * The same rule without a cache: every forward covers all positions up to the end of the block. With a `shift` of 1 the
 * token before a position predicts it.
 */
async function uncached(
  prompt: readonly number[],
  { blockSize, maxNewTokens = 0, threshold: level, stepsPerBlock, logitScale }: BlockOptions,
  shift = 0,
): Promise<{ ids: number[]; forwards: number }> {
  const strategy = createStrategy('threshold', { threshold: level, stepsPerBlock })
  const cache = forward.createCache()
  const ids = [...prompt]
  const limit = Math.min(prompt.length + maxNewTokens, maxPositions)
  let forwards = 0
  while (ids.length < limit) {
    const start = ids.length - (ids.length % blockSize)
    const open = new Set<number>()
    for (let i = ids.length; i < Math.min(start + blockSize, maxPositions); i++) open.add(i)
    for (const i of open) ids[i] = MASK
    const [size, decide] = [open.size + (ids.length - open.size - start), strategy.begin()]
    for (let step = 0; [...open].some((i) => i < limit); step++) {
      const masked = [...open]
      const rows = masked.map((i) => i - shift)
      const predictions = await forward.run(cache, { ids, blockSize, rows, store: 0, logitScale })
      const state = {
        step,
        size,
        open: masked.map((i) => i - start),
        current: masked.map(() => undefined),
        leading: true,
      }
      const { commit } = decide(state, predictions)
      for (const i of commit) {
        ids[masked[i]] = predictions.tokens[i]
        open.delete(masked[i])
      }
      forwards++
    }
  }
  await cache.free()
  return { ids: ids.slice(prompt.length, limit), forwards }
}

const cases = fc.record({
  prompt: fc.integer({ min: 0, max: 20 }).map((length) => randomPrompt(length)),
  blockSize: fc.constantFrom(1, 2, 3, 4, 8, 16),
  maxNewTokens: fc.integer({ min: 1, max: 24 }),
  threshold: fc.constantFrom(0, 0.3, 0.6, 0.9, 1),
  stepsPerBlock: fc.constantFrom(undefined, 1, 2, 3, 100),
  logitScale: fc.constantFrom(1, 4),
})

test('cached decoding commits what decoding without a cache commits, and the stream is the output', async () => {
  await fc.assert(
    fc.asyncProperty(cases, async ({ prompt, ...options }) => {
      const { blockSize, maxNewTokens } = options
      const { stream, ...result } = await run(endless, prompt, options)
      const expected = await uncached(prompt, options)
      expect(result.ids).toEqual(expected.ids)
      expect(result.forwards).toBe(expected.forwards)

      expect(result).toMatchObject({ stop: 'length', tokens: maxNewTokens, promptTokens: prompt.length })
      expect(result.tpf).toBeCloseTo(result.tokens / result.forwards)
      expect(result.ids).not.toContain(MASK)
      expect(new Set(stream.map(({ position }) => position)).size).toBe(stream.length)
      const positions = stream.filter(({ position }) => position < prompt.length + maxNewTokens)
      positions.sort((a, b) => a.position - b.position)
      expect(positions.map(({ position }) => position - prompt.length)).toEqual(result.ids.map((_, i) => i))
      expect(positions.map(({ token }) => token)).toEqual(result.ids)
      for (const [i, token] of stream.entries()) {
        expect(token.block).toBe(Math.floor(token.position / blockSize))
        expect(token.confidence).toBeGreaterThan(0)
        expect(token.confidence).toBeLessThanOrEqual(1)
        const before = stream[i - 1]
        if (!before) expect(token.step).toBe(0)
        else if (before.step === token.step) expect(before.position).toBeLessThan(token.position)
        else {
          expect(token.step).toBe(before.step + 1)
          expect(token.block - before.block).toBeOneOf([0, 1])
        }
      }
      expect(stream[stream.length - 1].step).toBe(result.forwards - 1)
    }),
    { numRuns: 60, seed: 1 },
  )
})

test('generation ends at the first EOS, whose tokens before are what they are without EOS', async () => {
  await fc.assert(
    fc.asyncProperty(cases, async ({ prompt, ...options }) => {
      const whole = await run(endless, prompt, options)
      const cut = await run(ending, prompt, options)
      const first = whole.ids.findIndex((id) => EOS.includes(id))
      expect(cut.ids).toEqual(first === -1 ? whole.ids : whole.ids.slice(0, first + 1))
      expect(cut.stop).toBe(first === -1 ? 'length' : 'eos')
      expect(cut.forwards).toBeLessThanOrEqual(whole.forwards)
      // Nothing is generated after a block with an EOS, and nothing once all before it is there.
      const shared = whole.stream.filter(({ step }) => step < cut.forwards)
      expect(cut.stream).toEqual(shared)
      if (first !== -1) {
        const needed = whole.stream.filter(({ position }) => position <= prompt.length + first)
        expect(cut.forwards).toBe(Math.max(...needed.map(({ step }) => step)) + 1)
      }
    }),
    { numRuns: 40, seed: 1 },
  )
})

test('prompts of every length modulo the block size', async () => {
  for (let length = 0; length <= 9; length++) {
    const options = { blockSize: 4, maxNewTokens: 10, threshold: 0.5, logitScale: 4 }
    const prompt = randomPrompt(length)
    const { ids, forwards } = await run(endless, prompt, options)
    expect({ ids, forwards }).toEqual(await uncached(prompt, options))
  }
})

test('a shifted model predicts each position from the one before, across blocks too', async () => {
  for (const length of [1, 3, 4, 5, 8, 600]) {
    const options = { blockSize: 4, maxNewTokens: 10, threshold: 0.5, logitScale: 4 }
    const prompt = randomPrompt(length)
    const { ids, forwards } = await run(shifted, prompt, options)
    expect({ ids, forwards }).toEqual(await uncached(prompt, options, 1))
  }
  expect(() => shifted.generate([], { blockSize: 4, maxNewTokens: 4 })).toThrow('at least one token')
})

test('threshold 0 takes one forward a block, threshold 1 one a token', async () => {
  const prompt = randomPrompt(6)
  const all = await run(endless, prompt, { blockSize: 4, maxNewTokens: 14, threshold: 0 })
  expect(all.forwards).toBe(4)
  const single = await run(endless, prompt, { blockSize: 4, maxNewTokens: 14, threshold: 1 })
  expect(single.forwards).toBe(14)
  const steps = await run(endless, prompt, { blockSize: 4, maxNewTokens: 14, threshold: 1, stepsPerBlock: 2 })
  expect(steps.forwards).toBe(1 + 2 * 3)
})

test('long prompts are cached in parts and the cache grows', async () => {
  for (const length of [250, 511, 700]) {
    const prompt = randomPrompt(length)
    const options = { blockSize: 8, maxNewTokens: 30, threshold: 0.3, logitScale: 4 }
    const { ids, forwards } = await run(endless, prompt, options)
    expect({ ids, forwards }).toEqual(await uncached(prompt, options))
  }
})

test('the last position of the model ends a generation', async () => {
  const prompt = randomPrompt(maxPositions - 5)
  const { ids, stop } = await run(endless, prompt, { blockSize: 16, maxNewTokens: 100, threshold: 0 })
  expect(ids).toHaveLength(5)
  expect(stop).toBe('length')
  const next = await complete(endless.generateAutoregressive(prompt, { maxNewTokens: 100 }))
  expect(next.ids).toHaveLength(5)
})

test('autoregressive decoding predicts the next token, one per forward', async () => {
  for (const length of [1, 5, 600]) {
    const prompt = randomPrompt(length)
    const { stream, ...result } = await collect(endless.generateAutoregressive(prompt, { maxNewTokens: 12 }))
    const ids = [...prompt]
    const cache = forward.createCache()
    for (let i = 0; i < 12; i++) {
      const { tokens } = await forward.run(cache, { ids, blockSize: 1, rows: [ids.length - 1], store: 0 })
      ids.push(tokens[0])
    }
    await cache.free()
    expect(result.ids).toEqual(ids.slice(length))
    expect(result).toMatchObject({ forwards: 12, tpf: 1, tokens: 12, stop: 'length' })
    expect(stream.map(({ position, token, step }) => [position, token, step])).toEqual(
      result.ids.map((id, i) => [length + i, id, i]),
    )
    const first = result.ids.findIndex((id) => EOS.includes(id))
    const cut = await complete(ending.generateAutoregressive(prompt, { maxNewTokens: 12 }))
    expect(cut.ids).toEqual(first === -1 ? result.ids : result.ids.slice(0, first + 1))
  }
})

test('generations at the same time do not disturb each other, and free what they used', async () => {
  const before = [...buffers]
  const prompts = [3, 8, 14, 300].map((length) => randomPrompt(length, 1))
  const options = { blockSize: 4, maxNewTokens: 12, threshold: 0.5, logitScale: 4 }
  const alone: number[][] = []
  for (const prompt of prompts) alone.push((await run(endless, prompt, options)).ids)
  const together = await Promise.all(prompts.map((prompt) => run(endless, prompt, options)))
  expect(together.map(({ ids }) => ids)).toEqual(alone)
  expect(before).toEqual(expect.arrayContaining([...buffers]))
})

test('a forward over neighbouring caches leaves the one between them as it is', async () => {
  const caches = [0, 1, 2].map(() => forward.createCache())
  const fill = (i: number) => {
    const ids = randomPrompt(9 + i, i)
    return forward.run(caches[i], { ids, blockSize: 1, rows: [], store: ids.length })
  }
  const probe = async () => {
    const request = { ids: randomPrompt(4, 7), blockSize: 4, rows: [0, 3], store: 0, logits: true }
    return (await forward.run(caches[1], request)).logits!
  }
  for (const i of [0, 1, 2]) await fill(i)
  const before = await probe()
  await Promise.all([fill(0), fill(2)])
  expect(await probe()).toEqual(before)
  for (const cache of caches) await cache.free()
})

/** A forward that changes nothing, to let some time pass. */
const still = { blockSize: 1, rows: [], store: 0 }

type Request = typeof request extends fc.Arbitrary<infer T> ? T : never

/** One generation of a batch: block or next-token decoding, starting when some others have begun. */
const request = fc.record({
  prompt: fc.integer({ min: 1, max: 40 }).chain((length) => fc.nat().map((seed) => randomPrompt(length, seed))),
  autoregressive: fc.nat({ max: 4 }).map((n) => n === 0),
  blockSize: fc.constantFrom(4, 4, 4, 4, 8),
  maxNewTokens: fc.integer({ min: 1, max: 24 }),
  threshold: fc.constantFrom(0.3, 0.6, 1),
  logitScale: fc.constantFrom(4, 4, 4, 4, 1),
  after: fc.integer({ min: 0, max: 6 }),
})

test('a batch gives each request what it gets alone: tokens, forwards and, but for rounding, confidences', async () => {
  const generate = async ({ prompt, autoregressive, after: _, ...options }: Request) => {
    const { maxNewTokens, logitScale } = options
    const sampling = { maxNewTokens, logitScale }
    const { ids, stop, forwards, stream } = await collect(
      autoregressive ? ending.generateAutoregressive(prompt, sampling) : ending.generate(prompt, options),
    )
    return { ids, stop, forwards, stream }
  }
  await fc.assert(
    fc.asyncProperty(fc.array(request, { minLength: 2, maxLength: 10 }), async (requests) => {
      const alone = []
      for (const one of requests) alone.push(await generate(one))
      const together = await Promise.all(
        requests.map(async (one) => {
          const cache = forward.createCache()
          for (let i = 0; i < one.after; i++) await forward.run(cache, { ...still, ids: one.prompt })
          await cache.free()
          return generate(one)
        }),
      )
      for (const [i, { stream, ...result }] of together.entries()) {
        const { stream: expected, ...same } = alone[i]
        expect(result).toEqual(same)
        expect(stream.map(({ confidence: _, ...token }) => token)).toEqual(
          expected.map(({ confidence: _, ...token }) => token),
        )
        for (const [j, { confidence }] of stream.entries()) expect(confidence).toBeCloseTo(expected[j].confidence, 4)
      }
    }),
    { numRuns: 30, seed: 1 },
  )
})

test('requests of one kind share forwards, whatever their lengths', async () => {
  let runs = 0
  const counting: Executor = {
    ...executor,
    async load(...args) {
      const session = await executor.load(...args)
      const run: typeof session.run = (...request) => {
        runs++
        return session.run(...request)
      }
      return { ...session, run }
    },
  }
  const engine = await createEngine(counting, model, weights, { maskTokenId: MASK, eosTokenIds: [] })
  const options = { blockSize: 8, maxNewTokens: 40, threshold: 0.6, logitScale: 4 }
  const prompts = Array.from({ length: 8 }, (_, i) => randomPrompt(20 + 3 * i, i))
  const results = await Promise.all(prompts.map((prompt) => run(engine, prompt, options)))
  const forwards = results.reduce((sum, result) => sum + result.forwards, 0)
  expect(runs).toBeLessThan(forwards / 3)
  await engine.dispose()
})

test('aborting one of a batch leaves the others as they are', async () => {
  const options = { ...plain, blockSize: 4, maxNewTokens: 20, threshold: 0.6, logitScale: 4 }
  const prompts = [5, 9, 6, 7].map((length) => randomPrompt(length, 2))
  const alone: number[][] = []
  for (const prompt of prompts) alone.push((await run(endless, prompt, options)).ids)
  const before = [...buffers]
  for (const victim of [0, 1, 3]) {
    const controller = new AbortController()
    const together = await Promise.allSettled(
      prompts.map((prompt, i) =>
        complete(
          endless.generate(prompt, i === victim ? { ...options, signal: controller.signal } : options),
          ({ step }) => {
            if (i === victim && step === 2) controller.abort(new Error('enough'))
          },
        ),
      ),
    )
    for (const [i, result] of together.entries())
      if (i === victim) expect(result).toMatchObject({ status: 'rejected', reason: { message: 'enough' } })
      else expect(result).toMatchObject({ status: 'fulfilled', value: { ids: alone[i] } })
  }
  expect([...buffers]).toEqual(before)
})

test('leaving the loop or aborting frees the state, and the engine goes on', async () => {
  const prompt = randomPrompt(5)
  const options = { blockSize: 4, maxNewTokens: 20, threshold: 1 }
  // Room for a short text stays.
  await run(endless, prompt, options)
  const before = [...buffers]
  for await (const { step } of endless.generate(prompt, options)) if (step === 2) break
  expect([...buffers]).toEqual(before)

  const controller = new AbortController()
  const seen: number[] = []
  const aborted = complete(endless.generate(prompt, { ...options, signal: controller.signal }), ({ step }) => {
    seen.push(step)
    if (step === 3) controller.abort(new Error('enough'))
  })
  await expect(aborted).rejects.toThrow('enough')
  expect(seen).toEqual([0, 1, 2, 3])
  expect([...buffers]).toEqual(before)
  expect((await run(endless, prompt, options)).ids).toHaveLength(20)
})

test('weights that are not numbers are an error, not an answer', async () => {
  const broken = new Map(weights)
  const norm = weights.get('model.norm.weight')!
  broken.set('model.norm.weight', { shape: norm.shape, data: norm.data.map(() => Number.NaN) })
  const engine = await createEngine(executor, model, broken, { maskTokenId: MASK, eosTokenIds: [] })
  const options = { blockSize: 4, maxNewTokens: 4 }
  await expect(complete(engine.generate([1, 2], options))).rejects.toThrow('not numbers')
  await engine.dispose()
})

test('wrong options and prompts are named', async () => {
  const options = { blockSize: 4, maxNewTokens: 4 }
  const says = (prompt: number[], wrong: Partial<BlockOptions>, message: RegExp | string) => {
    expect(() => endless.generate(prompt, { ...options, ...wrong })).toThrow(UserError)
    expect(() => endless.generate(prompt, { ...options, ...wrong })).toThrow(message)
  }
  says([1], { blockSize: 0 }, 'blockSize')
  says([1], { blockSize: 1.5 }, 'blockSize')
  says([1], { maxNewTokens: 0 }, 'maxNewTokens')
  says([1], { stepsPerBlock: 0 }, 'stepsPerBlock')
  says([1], { threshold: -1 }, 'threshold')
  says([1], { threshold: Number.NaN }, 'threshold')
  says([1], { temperature: -1 }, 'temperature')
  says([1], { topK: 5, minP: 0.1 }, 'topK: chooses what to draw from, but temperature is 0')
  says([1], { temperature: 1, topP: 0 }, 'topP')
  says([1], { logitBias: new Map([[vocabSize, 1]]) }, `token id ${vocabSize}`)
  says([1], { logitBias: new Map([[1, Number.NaN]]) }, 'token 1')
  says(
    [1],
    { strategy: 'fixed', threshold: 0.5 },
    'threshold: the strategy fixed does not read it; it reads tokensPerStep',
  )
  says([1], { strategy: 'fast' as never }, 'strategy: expected one of threshold, fixed')
  says([1], { strategy: 'edit', reuse: true }, 'strategy, reuse: edit looks at tokens again')
  says([1], { bufferSize: 0 }, 'bufferSize')
  says([1], { activation: 0.5, bufferSize: 1 }, 'bufferSize is 1')
  says([1], { logitScale: 0 }, 'logitScale')
  says([vocabSize], {}, `token id ${vocabSize}`)
  says([-1], {}, 'token id -1')
  says(randomPrompt(maxPositions), {}, `${maxPositions} tokens`)
  expect(() => endless.generateAutoregressive([], { maxNewTokens: 1 })).toThrow('at least one token')
  await expect(createEngine(executor, model, weights, { maskTokenId: 40, eosTokenIds: [] })).rejects.toThrow('mask')
  const base = await createEngine(executor, model, weights, { eosTokenIds: [] })
  expect(() => base.generate([1], options)).toThrow('mask token')
  await base.dispose()
})

test('a generation that is aborted at any time leaves the next one its buffers', async () => {
  const alone = await run(endless, randomPrompt(5), { blockSize: 4, maxNewTokens: 8 })
  for (let i = 0; i < 60; i++) {
    const stop = new AbortController()
    const aborted = complete(
      endless.generate(randomPrompt(9), { blockSize: 4, maxNewTokens: 20, signal: stop.signal }),
    ).catch(() => undefined)
    // Turns of the event loop, so that every place where it may be is met.
    for (let turn = 0; turn < i % 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    stop.abort()
    const { ids } = await complete(endless.generate(randomPrompt(5), { blockSize: 4, maxNewTokens: 8 }))
    expect(ids).toEqual(alone.ids)
    await aborted
  }
})
