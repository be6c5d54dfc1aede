// Counts what a reader meets, and turns bad rows into errors where that is asked for.
import { UserError } from '../types.ts'
import type { DataReport } from './types.ts'

const EXAMPLES = 20

export interface Reporter {
  bad(at: { file: string; line: number }, reason: string, epoch: number): void
  read(epoch: number, truncated: boolean): void
  report(): DataReport
}

/** Rows are counted in the first epoch that the reporter hears of; later epochs meet the same ones again. */
export function createReporter(
  sources: readonly { files: readonly unknown[] }[],
  badRows: 'skip' | 'fail' = 'skip',
): Reporter {
  const report: DataReport = {
    files: sources.reduce((sum, source) => sum + source.files.length, 0),
    documents: 0,
    badRows: 0,
    examples: [],
    truncated: 0,
    epoch: 0,
  }
  let firstEpoch: number | undefined
  return {
    bad({ file, line }, reason, epoch) {
      if (badRows === 'fail') throw new UserError(`${file}:${line}: ${reason}`)
      firstEpoch ??= epoch
      if (epoch !== firstEpoch) return
      report.badRows++
      if (report.examples.length < EXAMPLES) report.examples.push({ file, line, reason })
    },
    read(epoch, truncated) {
      firstEpoch ??= epoch
      report.documents++
      report.epoch = epoch
      if (truncated && epoch === firstEpoch) report.truncated++
    },
    report: () => ({ ...report, examples: [...report.examples] }),
  }
}

/** What to say where nothing usable was found. */
export function noDocuments(
  options: { paths: readonly (string | { path: string })[]; split?: string; validationFraction?: number },
  { files, badRows, examples }: DataReport,
): string {
  const paths = options.paths.map((entry) => (typeof entry === 'string' ? entry : entry.path)).join(', ')
  const { split = 'train', validationFraction = 0 } = options
  const first = examples[0]
  const bad = first ? `; ${badRows} bad rows, the first ${first.file}:${first.line}: ${first.reason}` : ''
  const hint =
    split === 'validation' ? ` (validationFraction is ${validationFraction}; give a larger one or more documents)` : ''
  return `no usable document in the ${split} split of ${paths} (${files} files)${bad}${hint}`
}
