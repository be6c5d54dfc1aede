// The library's one-call generation against the embedded model.
import { describe, expect, it } from 'vitest'
import { generate } from './generate.ts'
import { load } from './load.ts'
import { tinyModel } from './quickstart.ts'

describe('generate', () => {
  it('answers, and what it shows on the way only grows into the answer', async () => {
    const loaded = await load(tinyModel)
    const run = generate(loaded, 'reverse(stone)=', { template: 'none', threads: 1 })
    let shown = ''
    for (;;) {
      const { done, value } = await run.next()
      expect(value.text.startsWith(shown)).toBe(true)
      shown = value.text
      if (done) {
        expect(value.text).toBe('enots')
        expect(value).toMatchObject({ stop: 'eos', tokens: 6, forwards: 6 })
        return
      }
      expect(value.tokens.length).toBeGreaterThan(0)
    }
  })
})
