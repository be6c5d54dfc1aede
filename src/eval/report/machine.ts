// What ran the measurements, without host names or paths.
import { availableParallelism, cpus, totalmem } from 'node:os'
import type { ReportData } from './types.ts'

/** Describes this machine; `threads` is the size of the executor's pool. */
export function machineSummary(threads: number): ReportData['machine'] {
  return {
    cpu: cpus()[0]?.model.trim() || 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    threads,
  }
}
