import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ModelWorker, startWorker } from './host.ts'
import type { GenerateJob } from './protocol.ts'

const tiny = fileURLToPath(new URL('../../../models/tiny', import.meta.url))
let worker: ModelWorker
beforeAll(async () => {
  const options = { signal: new AbortController().signal, seconds: 60, onInternalError() {}, onOutput() {} }
  worker = await startWorker({ path: tiny, threads: 1 }, options)
}, 60_000)
afterAll(() => worker.close(true))

const endless: GenerateJob = {
  prompt: { kind: 'text', text: 'the people of' },
  promptParam: 'prompt',
  maxPromptTokens: 1000,
  maxNewTokens: 1900,
  sampling: {
    logitBias: [
      [256, -100],
      [258, -100],
    ],
  },
  stop: [],
  unmasking: false,
}

/** Begins a text, and waits for a piece of it. */
async function begin() {
  const stop = new AbortController()
  let begun = () => {}
  const first = new Promise<void>((resolve) => {
    begun = resolve
  })
  const generation = worker.generate(endless, stop.signal, ({ text }) => text !== '' && begun())
  await Promise.race([first, generation.result])
  return { stop, ...generation }
}

test('what is broken off rejects at once, and ends when the process has ended it', async () => {
  const { stop, result, ended } = await begin()
  const order: string[] = []
  const both = [result.catch((reason) => order.push(reason)), ended.then(() => order.push('ended'))]
  stop.abort('left')
  await Promise.all(both)
  expect(order).toEqual(['left', 'ended'])
})

test('what was never begun has ended', async () => {
  const { result, ended } = worker.generate(endless, AbortSignal.abort('left'), () => {})
  await expect(result).rejects.toBe('left')
  await ended
})

test('with its process everything ends', async () => {
  const { stop, result, ended } = await begin()
  stop.abort('left')
  await expect(result).rejects.toBe('left')
  await worker.close(true)
  await ended
})
