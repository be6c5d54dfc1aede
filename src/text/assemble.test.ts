import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CommittedToken, Generation, GenerationResult } from '../decode/index.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer/index.ts'
import { textOf } from '../tokenizer/stream.ts'
import { assemble, type TextEvent, type TextResult } from './assemble.ts'

const tokenizers = readFileSync(new URL('../tokenizer/fixtures/tokenizers.jsonl', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line))
  .map(({ name, tokenizer }): [string, Tokenizer] => [
    name,
    loadTokenizer({ 'tokenizer.json': JSON.stringify(tokenizer) }),
  ])

interface Plan {
  /** Sizes of the steps, and whether each is decided from its end to its beginning. */
  sizes: number[]
  backwards: boolean
  cachedTokens?: number
}

/** Decides tokens behind a prompt in steps, as the engine would: it ends with its first end token, or when asked to. */
async function* generationOf(
  prompt: number,
  ids: readonly number[],
  ends: readonly number[],
  { sizes, backwards, cachedTokens = 0 }: Plan,
): Generation {
  const end = ids.findIndex((id) => ends.includes(id))
  const all = end === -1 ? ids : ids.slice(0, end + 1)
  const result = (own: readonly number[], stop: GenerationResult['stop']): GenerationResult => ({
    ...{ ids: [...own], stop, tokens: own.length, forwards: 1, tpf: 1, tps: 1, seconds: 1 },
    ...{ promptTokens: prompt, cachedTokens, prefillSeconds: 0 },
  })
  for (let at = 0, step = 0; at < all.length; step++) {
    const size = Math.min(1 + (sizes[step % Math.max(1, sizes.length)] ?? 0), all.length - at)
    const tokens = all
      .slice(at, at + size)
      .map((token, i): CommittedToken => ({ position: prompt + at + i, token, confidence: 0.5, block: 0 }))
    at += size
    const parts = backwards && size > 1 ? [tokens.slice(1), tokens.slice(0, 1)] : [tokens]
    for (const [i, part] of parts.entries()) {
      const enough = yield { step, tokens: part, final: prompt + at - (i < parts.length - 1 ? size : 0) }
      if (enough) return result(enough, 'stop')
    }
  }
  return result(all, end === -1 ? 'length' : 'eos')
}

async function run(generation: Generation, options: Parameters<typeof assemble>[1]) {
  const events: TextEvent[] = []
  const writing = assemble(generation, options)
  for (;;) {
    const { done, value } = await writing.next()
    if (done) return { events, result: value as TextResult }
    events.push(value)
  }
}

const words = ['the', ' ', ' keeper', ' .', "'s", '12', '\n', '北京', '😊', 'é', '(x)', 'stop']
const text = fc.array(fc.constantFrom(...words), { maxLength: 12 }).map((parts) => parts.join(''))
const plan = fc.record({ sizes: fc.array(fc.nat(4), { maxLength: 4 }), backwards: fc.boolean() })
const decoder = new TextDecoder()

describe.each(tokenizers)('%s', (_, tokenizer) => {
  const end = tokenizer.tokenToId('<end>')!

  test('text, tokens and bytes say the same, whatever the steps', async () => {
    await fc.assert(
      fc.asyncProperty(text, text, plan, fc.boolean(), async (before, written, steps, ends) => {
        const [prompt, ids] = tokenizer.encodeParts([before, written])
        const all = ends ? [...ids, end, ...ids] : ids
        const { events, result } = await run(generationOf(prompt.length, all, [end], steps), {
          ...{ tokenizer, prompt, endTokens: [end] },
        })
        expect(result.text).toBe(textOf(tokenizer, ids, { after: prompt }))
        expect(events.map(({ added }) => added).join('')).toBe(result.text)
        let shown = ''
        for (const event of events) {
          shown += event.added
          expect(event.text).toBe(shown)
        }
        expect(events.flatMap(({ tokens }) => tokens.map(({ token }) => token))).toEqual(ids)
        const bytes = events.flatMap(({ tokens }) => tokens.flatMap((token) => [...token.bytes]))
        expect(decoder.decode(Uint8Array.from(bytes))).toBe(result.text)
        expect(result).toMatchObject({ ids: ends ? [...ids, end] : ids, stop: ends ? 'eos' : 'length' })
        expect(events.at(-1)?.count ?? 0).toBe(result.ids.length)
      }),
    )
  })

  test('a stop string ends text and tokens before it, and nothing of it is shown', async () => {
    const stops = fc.array(fc.constantFrom('stop', 'keep', "'s12", '京😊', 'x)', 'é'), { minLength: 1, maxLength: 3 })
    await fc.assert(
      fc.asyncProperty(text, plan, stops, async (written, steps, stop) => {
        const [prompt, ids] = tokenizer.encodeParts(['a', written])
        const whole = textOf(tokenizer, ids, { after: prompt })
        const { events, result } = await run(generationOf(prompt.length, ids, [end], { ...steps, cachedTokens: 7 }), {
          tokenizer,
          prompt,
          endTokens: [end],
          stop,
        })
        expect(whole.startsWith(result.text)).toBe(true)
        for (const s of stop) expect(result.text).not.toContain(s)
        const stopped = stop.some((s) => whole.includes(s))
        expect(result.stop).toBe(stopped ? 'stop' : 'length')
        if (!stopped) expect(result.text).toBe(whole)
        else expect(stop.some((s) => whole.startsWith(result.text + s))).toBe(true)
        expect(result.cachedTokens).toBe(7)
        expect(result.tokens).toBe(result.ids.length)
        expect(ids.slice(0, result.ids.length)).toEqual(result.ids)
        // Tokens are those whose text began before the stop string.
        const reported = events.flatMap(({ tokens }) => tokens)
        const said = decoder.decode(Uint8Array.from(reported.flatMap(({ bytes }) => [...bytes])))
        expect(said.startsWith(result.text)).toBe(true)
        const butLast = decoder.decode(Uint8Array.from(reported.slice(0, -1).flatMap(({ bytes }) => [...bytes])))
        if (reported.length > 0) expect(butLast.length <= result.text.length).toBe(true)
        for (const event of events) expect(result.text.startsWith(event.text)).toBe(true)
      }),
    )
  })
})

test('a text that another follows ends where that begins, or at an end token before', async () => {
  const [, tokenizer] = tokenizers[1]
  const end = tokenizer.tokenToId('<end>')!
  const [prompt, hole, behind] = tokenizer.encodeParts(['the', ' keeper', ' of it'])
  const options = { tokenizer, prompt, endTokens: [end], end: prompt.length + hole.length }
  const steps = { sizes: [], backwards: false }
  const { result } = await run(generationOf(prompt.length, [...hole, ...behind], [], steps), options)
  expect(result).toMatchObject({ text: ' keeper', ids: hole, stop: 'length' })
  const ended = [hole[0], end, ...hole.slice(2), ...behind]
  const cut = await run(generationOf(prompt.length, ended, [], steps), options)
  expect(cut.result).toMatchObject({ ids: [hole[0], end], stop: 'eos' })
  expect(cut.result.text).toBe(textOf(tokenizer, [hole[0]], { after: prompt }))
})

test('leaving early ends the generation', async () => {
  const [, tokenizer] = tokenizers[1]
  let ended = false
  async function* endless(): Generation {
    try {
      for (let i = 0; ; i++)
        yield { step: i, tokens: [{ position: i, token: 5, confidence: 1, block: 0 }], final: i + 1 }
    } finally {
      ended = true
    }
  }
  for await (const { count } of assemble(endless(), { tokenizer, prompt: [], endTokens: [] })) if (count === 3) break
  expect(ended).toBe(true)
})
