// Choosing continuations: how items are drawn, and that a model which knows the answers finds them.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { createForward } from '../decode/forward.ts'
import { scoreAutoregressive } from '../decode/score.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { taskRows } from '../tasks/index.ts'
import { choiceItems, choose } from './choices.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const rows = [...taskRows({ seed: 3, count: 24, split: 'test' })]

describe('items', () => {
  it('are rows, each once, with the completions of others, and a function of the seed', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 0, max: 7 }), fc.nat(), (count, others, seed) => {
        const options = { count, alternatives: others, seed }
        const items = choiceItems(rows, options)
        expect(items).toHaveLength(Math.min(count, rows.length))
        expect(new Set(items.map(({ prompt }) => prompt)).size).toBe(items.length)
        for (const { prompt, choices } of items) {
          expect(rows).toContainEqual(expect.objectContaining({ prompt, completion: choices[0] }))
          expect(new Set(choices).size).toBe(others + 1)
        }
        expect(choiceItems(rows, options)).toEqual(items)
      }),
      { numRuns: 50 },
    )
  })

  it('are refused where there is too little to choose from', () => {
    const same = rows.map(({ prompt }) => ({ prompt, completion: 'yes' }))
    expect(() => choiceItems(same, { count: 1, alternatives: 1, seed: 0 })).toThrow('too few different completions')
  })
})

describe('a choice', () => {
  it('is the one with the largest log-probability per byte, which is that of the text as a whole', async () => {
    const { model, parameters, tokenizer } = await load(tinyModel)
    const forward = await createForward(executor, model, parameters, [])
    const items = choiceItems(rows, { count: 12, alternatives: 3, seed: 1 })
    const expected: boolean[] = []
    for (const { prompt, choices } of items) {
      const scores: number[] = []
      for (const choice of choices) {
        const ids = [...tokenizer.encode(prompt), ...tokenizer.encode(choice)]
        const all = await scoreAutoregressive(forward, ids, { vocabSize: model.dimensions.vocabSize })
        const own = all.slice(tokenizer.encode(prompt).length)
        scores.push(own.reduce((sum, score) => sum + score!.logprob, 0) / Buffer.byteLength(choice))
      }
      expected.push(scores.indexOf(Math.max(...scores)) === 0)
    }
    const chosen = await choose(forward, tokenizer, items)
    await forward.dispose()
    expect(chosen).toEqual(expected)
    // It has learned these tasks.
    expect(chosen.filter(Boolean).length).toBeGreaterThan(9)
  })
})
