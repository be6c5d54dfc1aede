// bench moderation: precision and recall of the default filter on public labelled sets, whose files are not part of this
// repository.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import { createFilter, defaultDetectors } from '../src/safety/index.ts'
import { print } from './measure.ts'

export const usage = `usage: npm run bench -- moderation --sets FOLDER

Judges every case of the sets in FOLDER with the filter of the package, threshold 0.5. FOLDER holds one or more of
  openai.jsonl    data/samples-1680.jsonl.gz of github.com/openai/moderation-api-release (MIT), unpacked
  davidson.csv    data/labeled_data.csv of github.com/t-davidson/hate-speech-and-offensive-language (MIT)
  hatecheck.csv   test_suite_cases.csv of github.com/paul-rottger/hatecheck-data (CC-BY-4.0)
`

interface Case {
  text: string
  /** Label by category; what is absent was not labelled. */
  labels: Record<string, boolean>
}

/** Names of OpenAI's labels, and the categories that answer for each. */
const labels: Record<string, [name: string, categories: string[]]> = {
  S: ['sexual', ['sexual', 'sexual/minors']],
  H: ['hate', ['hate', 'hate/threatening']],
  V: ['violence', ['violence', 'violence/graphic', 'hate/threatening', 'harassment/threatening']],
  HR: ['harassment', ['harassment', 'harassment/threatening']],
  SH: ['self-harm', ['self-harm', 'self-harm/intent', 'self-harm/instructions']],
  S3: ['sexual/minors', ['sexual/minors']],
  H2: ['hate/threatening', ['hate/threatening']],
  V2: ['violence/graphic', ['violence/graphic']],
}

const answering = new Map<string, string[] | undefined>([
  ...Object.values(labels),
  ['any', undefined],
  ['offensive', undefined],
  ['hateful', ['hate', 'hate/threatening']],
])

function readCsv(text: string): Record<string, string>[] {
  const rows = [...text.matchAll(/(?:"((?:[^"]|"")*)"|([^,\n]*))(,|\r?\n|$)/g)]
  const table: string[][] = [[]]
  for (const [whole, quoted, bare, end] of rows) {
    if (whole === '') break
    table.at(-1)!.push(quoted?.replaceAll('""', '"') ?? bare ?? '')
    if (end !== ',') table.push([])
  }
  const [head = [], ...body] = table.filter((row) => row.length > 1)
  return body.map((row) => Object.fromEntries(head.map((name, i) => [name, row[i] ?? ''])))
}

const readers: Record<string, (text: string) => Case[]> = {
  'openai.jsonl': (text) =>
    text
      .trim()
      .split('\n')
      .map((line) => {
        const row = JSON.parse(line) as Record<string, unknown>
        const known = Object.entries(labels).filter(([key]) => row[key] !== undefined)
        const named = known.map(([key, [name]]) => [name, row[key] === 1] as const)
        return {
          text: String(row.prompt),
          labels: { ...Object.fromEntries(named), any: named.some(([, value]) => value) },
        }
      }),
  'davidson.csv': (text) =>
    readCsv(text).map((row) => ({ text: row.tweet ?? '', labels: { offensive: row.class !== '2' } })),
  'hatecheck.csv': (text) =>
    readCsv(text).map((row) => ({ text: row.test_case ?? '', labels: { hateful: row.label_gold === 'hateful' } })),
}

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: { sets: { type: 'string' }, threads: { type: 'string' } } })
  const { sets = '' } = values
  const files = Object.keys(readers).filter((file) => existsSync(join(sets, file)))
  if (files.length === 0)
    throw new UserError(`bench moderation: --sets must name a folder with ${Object.keys(readers).join(', ')}`)
  for (const file of files)
    await measure(file.replace(/\..*$/, ''), readers[file](await readFile(join(sets, file), 'utf8')))
}

async function measure(set: string, cases: readonly Case[]): Promise<void> {
  const filter = createFilter({ detectors: defaultDetectors() })
  const counts = new Map<string, { hits: number; false: number; missed: number; positives: number; labelled: number }>()
  for (const { text, labels: given } of cases) {
    const flagged = new Set(filter.flagged((await filter.judge(text)).scores))
    for (const [name, wanted] of Object.entries(given)) {
      const found = answering.get(name)?.some((category) => flagged.has(category)) ?? flagged.size > 0
      const count = counts.get(name) ?? { hits: 0, false: 0, missed: 0, positives: 0, labelled: 0 }
      counts.set(name, count)
      count.labelled++
      if (wanted) count.positives++
      if (wanted && found) count.hits++
      else if (found) count.false++
      else if (wanted) count.missed++
    }
  }
  for (const [name, count] of counts) {
    const precision = count.hits / (count.hits + count.false)
    const recall = count.hits / count.positives
    const round = (value: number) => Number(value.toFixed(3))
    print({
      ...{ set, label: name, labelled: count.labelled, positives: count.positives },
      ...{ precision: round(precision), recall: round(recall) },
    })
  }
}
