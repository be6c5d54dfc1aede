import { describe, expect, it } from 'vitest'
import { splitOf, taskRow } from '../tasks/index.ts'
import { compareDecoding } from './compare.ts'
import { type Decode, decodePrompts, type Prompt, summarize, taskPrompts } from './decoding.ts'

const encode = (text: string) => [...text].map((character) => character.charCodeAt(0))

/** Knows every answer, and says `wrong` instead to every nth prompt. */
const solver = (prompts: readonly Prompt[], forwardsPerToken: number, wrongEvery = 0): Decode => {
  let asked = 0
  return async (ids) => {
    const { expected } = prompts.find((prompt) => String(prompt.ids) === String(ids))!
    asked++
    const wrong = wrongEvery > 0 && asked % wrongEvery === 0
    const text = wrong ? 'wrong' : expected!
    const answer = [...encode(text), 256]
    return { text, ids: answer, forwards: answer.length * forwardsPerToken, seconds: answer.length / 100 }
  }
}

describe('taskPrompts', () => {
  it('are held out, and the same for a seed', () => {
    const prompts = taskPrompts(['add', 'sort'], 5, { seed: 1, encode })
    expect(prompts).toHaveLength(10)
    expect(prompts.every(({ text }) => splitOf(text) === 'test')).toBe(true)
    expect(prompts).toEqual(taskPrompts(['add', 'sort'], 5, { seed: 1, encode }))
    expect(prompts[5]!.expected).toBe(taskRow('sort', 1, 0, 'test').completion)
  })
})

describe('decodePrompts', () => {
  const prompts = taskPrompts(['reverse'], 8, { seed: 2, encode })

  it('keeps the texts and counts tokens and forwards', async () => {
    const outputs = await decodePrompts(prompts, solver(prompts, 0.25), {})
    expect(outputs.map(({ text }) => text)).toEqual(prompts.map(({ expected }) => expected))
    const { score, tokensPerForward, tokensPerSecond } = summarize(outputs)
    expect(score).toMatchObject({ rows: 8, accuracy: 1 })
    expect(tokensPerForward).toBeCloseTo(4)
    expect(tokensPerSecond).toBeCloseTo(100)
  })

  it('has no score where nothing says what is right', async () => {
    const free = prompts.map((prompt) => ({ ...prompt, task: undefined }))
    expect(summarize(await decodePrompts(free, solver(free, 1), {})).score).toBeUndefined()
  })

  it('stops when it is asked to', async () => {
    const stop = new AbortController()
    const decoding = decodePrompts(prompts, solver(prompts, 1), {
      signal: stop.signal,
      onPrompt: (done) => done === 3 && stop.abort(new Error('enough')),
    })
    await expect(decoding).rejects.toThrow('enough')
  })
})

describe('compareDecoding', () => {
  it('puts both models and all thresholds beside each other', async () => {
    const prompts = taskPrompts(['reverse', 'sort'], 4, { seed: 3, encode })
    const result = await compareDecoding({
      prompts,
      ar: solver(prompts, 1),
      diffusion: (threshold) => solver(prompts, threshold / 4, threshold < 0.8 ? 2 : 0),
      threshold: 0.9,
      sweep: [0.9, 0.5],
    })
    expect(result.ar?.tokensPerForward).toBeCloseTo(1)
    expect(result.diffusion?.score?.accuracy).toBe(1)
    expect(result.sweep.map(({ threshold, score }) => [threshold, score?.accuracy])).toEqual([
      [0.5, 0.5],
      [0.9, 1],
    ])
    expect(result.tasks.map(({ task, ar, diffusion }) => [task, ar?.rows, diffusion?.rows])).toEqual([
      ['reverse', 4, 4],
      ['sort', 4, 4],
    ])
    expect(result.samples).toHaveLength(6)
    expect(result.samples[0]).toMatchObject({ ar: prompts[0]!.expected, diffusion: prompts[0]!.expected })
  })
})
