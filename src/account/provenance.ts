// Where a measurement comes from: command, date, versions, machine. No host name and no path: reports are published.
import { availableParallelism, cpus, totalmem } from 'node:os'
import { versions } from '../core/versions.ts'

export interface Provenance {
  /** ISO 8601. */
  created: string
  /** The command that repeats the run. */
  command: string
  /** Name -> version: unmask, node, onnxruntime-node. */
  versions: Record<string, string>
  machine: {
    cpu: string
    cores: number
    memoryBytes: number
    platform: string
    /** Size of the executor's pool; undefined where the measured program runs elsewhere. */
    threads: number | undefined
  }
}

/** Describes this moment and this machine. */
export function provenance(command: string, threads: number | undefined): Provenance {
  return {
    created: new Date().toISOString(),
    command: publishable(command),
    versions: versions(),
    machine: {
      cpu: cpus()[0]?.model.trim() || 'unknown',
      cores: availableParallelism(),
      memoryBytes: totalmem(),
      platform: `${process.platform} ${process.arch}`,
      threads,
    },
  }
}

/** Absolute paths name people and machines; a report keeps their last part. */
export function publishable(text: string): string {
  return text.replace(/(^|[\s=,])(?:\/|[A-Za-z]:\\)[^\s,]*[\\/]([^\s,\\/]+)/g, '$1$2')
}
