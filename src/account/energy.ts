// What the machine reports about energy. Knows nothing about training.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Joules that the processor packages have used since the meter was made. */
export type EnergyMeter = () => Promise<number>

/**
 * An energy meter on the RAPL counters that Linux shows (powercap, `energy_uj` of each package, in microjoules; they wrap
 * around at `max_energy_range_uj`). Undefined where there are none or they may not be read: many systems let only root.
 */
export async function energyMeter(folder = '/sys/class/powercap'): Promise<EnergyMeter | undefined> {
  const counters: { path: string; range: number; last: number }[] = []
  try {
    for (const zone of await readdir(folder)) {
      // A zone such as intel-rapl:0:1 is a part of intel-rapl:0; zones that are no package repeat or exceed packages.
      if (!/^intel-rapl:\d+$/.test(zone)) continue
      if (!(await readFile(join(folder, zone, 'name'), 'utf8')).startsWith('package')) continue
      const path = join(folder, zone, 'energy_uj')
      const range = await readNumber(join(folder, zone, 'max_energy_range_uj'))
      counters.push({ path, range, last: await readNumber(path) })
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined // no such folder, or not readable by this user
    throw error
  }
  if (counters.length === 0) return undefined

  let total = 0
  return async () => {
    for (const counter of counters) {
      const now = await readNumber(counter.path)
      total += now >= counter.last ? now - counter.last : now + counter.range - counter.last
      counter.last = now
    }
    return total / 1e6
  }
}

async function readNumber(path: string): Promise<number> {
  return Number(await readFile(path, 'utf8'))
}
