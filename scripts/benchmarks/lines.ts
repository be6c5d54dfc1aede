// Reads the files under docs/reports.
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { RunLine } from '../../bench/measure.ts'
import type { Provenance } from '../../src/account/provenance.ts'
import type { ReportData } from '../../src/eval/report/types.ts'
import type { Comparisons } from '../../src/eval/suite/compare.ts'
import type { ConditionSummary, DomainSummary } from '../../src/eval/suite/summary.ts'
import type { LoadResult } from '../../src/serve/load-test.ts'

const path = (file: string): string => fileURLToPath(new URL(`../../docs/reports/${file}`, import.meta.url))

/** A measurement of `npm run bench`. */
export interface Line {
  bench: string
  case: string
  value: number
  unit: string
  peer: string | null
  peer_value: number | null
  ratio: number | null
  error?: number
}

/** Figures of a model beside its base. */
export interface Suite {
  comparisons: Comparisons
  model: { tasks: { name: string; conditions: ConditionSummary[] }[]; domains: DomainSummary[] }
  base: Suite['model']
}

/** What a file holds, with the runs that made it; without runs where it was written before they were recorded. */
export interface Recorded<T> {
  runs: Provenance[]
  lines: T[]
}

/** Undefined where the file does not exist: it was not measured yet. */
export function readLines<T = Line>(file: string): Recorded<T> | undefined {
  if (!existsSync(path(file))) return undefined
  const all = readFileSync(path(file), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T | RunLine)
  const isRun = (line: T | RunLine): line is RunLine => typeof line === 'object' && line !== null && 'run' in line
  return {
    runs: all.filter(isRun).map(({ run }) => run),
    lines: all.filter((line): line is T => !isRun(line)),
  }
}

/** Undefined where the file does not exist. */
export function readReport(folder: string, file = 'report.json'): ReportData | undefined {
  const name = path(`${folder}/${file}`)
  return existsSync(name) ? (JSON.parse(readFileSync(name, 'utf8')) as ReportData) : undefined
}

/** What `eval suite --json` printed of a model and its base. Undefined where the file does not exist. */
export function readSuite(file: string): Recorded<Suite> | undefined {
  if (!existsSync(path(file))) return undefined
  const suite = JSON.parse(readFileSync(path(file), 'utf8')) as Suite & { run: Provenance }
  return { runs: [suite.run], lines: [suite] }
}

export function readServe(): Recorded<LoadResult> {
  const read = JSON.parse(readFileSync(path('serve/serve.json'), 'utf8'))
  return Array.isArray(read) ? { runs: [], lines: read } : { runs: [read.run], lines: read.results }
}
