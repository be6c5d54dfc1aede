import { expect, it } from 'vitest'
import type { PipelineEvent } from '../jobs/pipeline.ts'
import { pipelineDisplay } from './commands/pipeline.ts'
import type { Display } from './display.ts'
import { countedProgress } from './progress.ts'

/** A display that keeps every state. */
function recorder() {
  const texts: string[] = []
  const display: Display = {
    ...{ live: false, done() {}, clear() {} },
    update: ({ plain }) => texts.push(plain()),
    line: (text) => texts.push(text),
  }
  return { texts, display }
}

it('names what it counts and the time left, by the pace since the first report', () => {
  const { texts, display } = recorder()
  let now = 50_000
  const show = countedProgress(display, () => now)
  show({ what: 'rounding', done: 1, total: 5, unit: 'matrices' })
  now += 3000
  show({ what: 'rounding', done: 2, total: 5, unit: 'matrices', detail: 'q changed by 1 %' })
  show({ what: 'decoding', done: 1, total: 4, unit: 'prompts', secondsLeft: 90 })
  show({ what: 'decoding', done: 4, total: 4, unit: 'prompts' })
  show({ what: 'empty', done: 0, total: 0 })
  expect(texts).toEqual([
    'rounding: 1 of 5 matrices',
    'rounding: 2 of 5 matrices, q changed by 1 %, 9 s left',
    'decoding: 1 of 4 prompts, 1:30 left',
    'decoding: 4 of 4 prompts',
    'empty: 0 of 0',
  ])
})

it('is the same in a pipeline as in the commands of its stages', () => {
  const { texts, display } = recorder()
  const show = pipelineDisplay({ display, whenStopped() {} })
  const events: PipelineEvent[] = [
    { type: 'tensor', name: 'q', done: 1, total: 29, error: 0.1, share: 0.03 },
    { type: 'progress', done: 2, total: 8, secondsLeft: 6 },
    { type: 'reference', done: 3, total: 7 },
    { type: 'decoding', label: 'AR', done: 4, total: 9 },
  ]
  for (const event of events) show(event)
  expect(texts).toEqual([
    'rounding: 1 of 29 matrices, q changed by 10.00 %',
    'decoding: 2 of 8 generations, 6 s left',
    'reference: 3 of 7 pairs',
    'decoding, AR: 4 of 9 prompts',
  ])
})
