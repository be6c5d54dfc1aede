// How long a process waited for a processor: on a busy machine that is no fault of its own.
import { readFileSync } from 'node:fs'

/** Seconds that the main thread of a process was ready and did not run, so far; 0 where the system does not say (other than Linux). */
export function processorWait(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1] ?? 0) / 1e9
  } catch {
    return 0
  }
}
