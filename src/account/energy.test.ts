import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { energyMeter } from './energy.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-energy-'))
})
afterAll(() => rm(folder, { recursive: true }))

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
