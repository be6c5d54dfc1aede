import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { energyMeter, type MetricsRecord, openMetrics, readMetrics } from './metrics.ts'

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

describe('energyMeter', () => {
  const zone = async (name: string, label: string, energy: number) => {
    const path = join(folder, 'powercap', name)
    await mkdir(path, { recursive: true })
    await writeFile(join(path, 'name'), `${label}\n`)
    await writeFile(join(path, 'max_energy_range_uj'), '10000000\n')
    await writeFile(join(path, 'energy_uj'), `${energy}\n`)
  }

  it('adds up the packages, once each, over a wrap-around', async () => {
    await zone('intel-rapl:0', 'package-0', 1_000_000)
    await zone('intel-rapl:1', 'package-1', 9_000_000)
    await zone('intel-rapl:2', 'psys', 0)
    await zone('intel-rapl:0:0', 'core', 0)
    const joules = (await energyMeter(join(folder, 'powercap')))!
    expect(await joules()).toBe(0)
    await zone('intel-rapl:0', 'package-0', 3_000_000)
    await zone('intel-rapl:1', 'package-1', 500_000)
    await zone('intel-rapl:2', 'psys', 5_000_000)
    await zone('intel-rapl:0:0', 'core', 5_000_000)
    expect(await joules()).toBe(3.5)
    await zone('intel-rapl:0', 'package-0', 4_000_000)
    expect(await joules()).toBe(4.5)
  })

  it('is undefined where the machine does not report it', async () => {
    expect(await energyMeter(join(folder, 'nowhere'))).toBe(undefined)
    await mkdir(join(folder, 'empty'))
    expect(await energyMeter(join(folder, 'empty'))).toBe(undefined)
  })
})
