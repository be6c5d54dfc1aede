// Counts what a reader meets, and turns bad rows into errors where that is asked for.
import { UserError } from '../core/types.ts'
import type { DataReport, Reason } from './types.ts'

/** Reasons that are counted apart; further ones are counted together. */
const MOST_REASONS = 50

interface Place {
  file: string
  line: number
}

export interface Reporter {
  bad(at: Place, reason: string, epoch: number): void
  /** A row is used, but not as a whole. */
  note(at: Place, what: string, epoch: number): void
  read(epoch: number): void
  /** A document that belongs to the other split. */
  other(epoch: number): void
  report(): DataReport
}

/** Rows are counted in the first epoch that the reporter hears of; later epochs meet the same ones again. */
export function createReporter(
  sources: readonly { files: readonly unknown[] }[],
  badRows: 'skip' | 'fail' = 'skip',
): Reporter {
  const bad = createTally()
  const notes = createTally()
  const files = sources.reduce((sum, source) => sum + source.files.length, 0)
  let documents = 0
  let otherSplit = 0
  let lastEpoch = 0
  let firstEpoch: number | undefined
  const isFirst = (epoch: number): boolean => {
    firstEpoch ??= epoch
    return epoch === firstEpoch
  }
  return {
    bad(at, reason, epoch) {
      if (badRows === 'fail') throw new UserError(`${at.file}:${at.line}: ${reason}`)
      if (isFirst(epoch)) bad.add(at, reason)
    },
    note(at, what, epoch) {
      if (isFirst(epoch)) notes.add(at, what)
    },
    read(epoch) {
      isFirst(epoch)
      documents++
      lastEpoch = epoch
    },
    other(epoch) {
      if (isFirst(epoch)) otherSplit++
    },
    report: () => ({
      ...{ files, documents, otherSplit, epoch: lastEpoch },
      badRows: bad.reasons().reduce((sum, { rows }) => sum + rows, 0),
      reasons: bad.reasons(),
      notes: notes.reasons(),
    }),
  }
}

/** Counts by reason; reasons that differ only in numbers and in what is quoted are one, in the words of the first. */
function createTally() {
  const reasons = new Map<string, Reason>()
  return {
    add(first: Place, reason: string): void {
      const kind = reason.replace(/"[^"]*"|\d+/g, '#')
      const key = reasons.has(kind) || reasons.size < MOST_REASONS ? kind : ''
      const known = reasons.get(key)
      if (known) known.rows++
      else reasons.set(key, { reason: key === '' ? 'other reasons' : reason, rows: 1, first })
    },
    reasons: (): Reason[] => [...reasons.values()].map((reason) => ({ ...reason })).sort((a, b) => b.rows - a.rows),
  }
}

/** A sentence for each reason why rows were left out, and for what was left out of others. */
export function describeReport({ reasons, notes }: Pick<DataReport, 'reasons' | 'notes'>): string[] {
  const at = ({ first }: Reason) => `(the first is ${first.file}:${first.line})`
  const count = ({ rows }: Reason) => (rows === 1 ? '1 row' : `${rows} rows`)
  return [
    ...reasons.map((one) => `${count(one)} left out: ${one.reason} ${at(one)}`),
    ...notes.map((one) => `${count(one)}: ${one.reason} ${at(one)}`),
  ]
}

/** What to say where nothing usable was found. */
export function noDocuments(
  options: { paths: readonly (string | { path: string })[]; split?: string; validationFraction?: number },
  report: DataReport,
): string {
  const paths = options.paths.map((entry) => (typeof entry === 'string' ? entry : entry.path)).join(', ')
  const { split = 'train', validationFraction = 0 } = options
  const why = describeReport({ ...report, notes: [] })
  if (report.otherSplit > 0 && split === 'validation')
    why.push(
      `a held-out share of ${validationFraction} is too little of ${report.otherSplit} document${report.otherSplit === 1 ? '' : 's'}: raise --validation-fraction, or name held-out data with --validation-path`,
    )
  if (report.otherSplit > 0 && split === 'train')
    why.push(`all ${report.otherSplit} documents are held out for validation: lower --validation-fraction`)
  if (why.length === 0)
    why.push(`there are no rows in ${report.files === 1 ? 'the file' : `its ${report.files} files`}`)
  const side = split === 'validation' || validationFraction > 0 ? `the ${split} split of ` : ''
  return `no usable document in ${side}${paths}: ${why.join('; ')}`
}
