import { afterAll, beforeAll, expect, test } from 'vitest'
import { tinyModel } from '../jobs/quickstart.ts'
import { written } from './assemble.ts'
import type { OpenModel } from './model.ts'
import { openModel } from './open.ts'

let model: OpenModel
beforeAll(async () => {
  model = await openModel(tinyModel, { threads: 1 })
})
afterAll(() => model.dispose())

test('is asked many times, also at the same time, as it was trained', async () => {
  const words = ['stone', 'abc', 'hello']
  const answers = await Promise.all(words.map((word) => written(model.generate(`reverse(${word})=`))))
  expect(answers.map(({ text }) => text)).toEqual(words.map((word) => [...word].reverse().join('')))
  const [answer] = answers
  expect(answer).toMatchObject({ stop: 'eos', tokens: 6 })
})

test('answers the last question of a chat', async () => {
  const messages = [
    { role: 'user', content: 'reverse(ab)=' },
    { role: 'assistant', content: 'ba' },
    { role: 'user', content: 'reverse(word)=' },
  ]
  expect((await written(model.chat(messages))).text).toBe('drow')
})

test('gives text as it becomes final, and can be left', async () => {
  let text = ''
  for await (const event of model.generate('reverse(stone)=')) {
    text += event.added
    expect(event.text).toBe(text)
    if (text.length === 3) break
  }
  expect(text).toBe('eno')
})

test('scores a text, and says what it cannot do', async () => {
  const scores = await model.score('reverse(ab)=ba')
  expect(scores).toHaveLength('reverse(ab)=ba'.length)
  expect(scores[0].logprob).toBeUndefined()
  expect(scores.at(-1)!.logprob).toBeGreaterThan(-0.1)
  await expect(model.infill('a {{2}} b')).rejects.toThrow('autoregressive')
  expect(() => model.generate('a', { stop: [''] })).toThrow('must not be empty')
})
