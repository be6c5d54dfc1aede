import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type MetricsRecord, openMetrics, readMetrics } from './metrics.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-metrics-'))
})
afterAll(() => rm(folder, { recursive: true }))

const lineOf = (step: number): MetricsRecord => ({
  step,
  tokens: 10 * step,
  block_size: 4,
  stage: 0,
  flops: 100 * step,
  rss_bytes: 1,
  peak_rss_bytes: 2,
  elapsed_s: step,
})

describe('openMetrics', () => {
  it('continues behind the resumed step, wherever the file was cut', async () => {
    const path = join(folder, 'cut.jsonl')
    const whole = [0, 1, 2, 3, 4, 5].map((step) => `${JSON.stringify(lineOf(step))}\n`).join('')
    await fc.assert(
      fc.asyncProperty(
        fc.nat(whole.length),
        fc.integer({ min: -1, max: 6 }),
        fc.boolean(),
        async (cut, step, zeros) => {
          await writeFile(path, whole.slice(0, cut) + (zeros ? '\0\0\0' : ''))
          const metrics = await openMetrics(path, step)
          await metrics.append(lineOf(7))
          await metrics.flush()
          await metrics.close()
          const kept = whole.slice(0, cut).split('\n').length - 1
          const expected = [0, 1, 2, 3, 4, 5].slice(0, Math.min(kept, step + 1))
          expect((await readMetrics(path)).map((line) => line.step)).toEqual([...expected, 7])
          expect((await readFile(path, 'utf8')).trim().split('\n').length).toBe(expected.length + 1)
        },
      ),
      { numRuns: 60 },
    )
  })
})
