// From the files of a company to what a model is trained on and measured with: rows that can be used, none of them twice, none
// that stands in an evaluation set, split by the row.
import { join } from 'node:path'
import { hashData } from '../account/record.ts'
import { makeFolder, writeTextAtomically } from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import { type Columns, columnNames, columnsRead, type Example, pointOf, readExample, textsOf } from '../data/example.ts'
import { findFiles } from '../data/files.ts'
import { createNearIndex, normalised } from '../data/near-duplicates.ts'
import { readRows } from '../data/rows.ts'

export interface AdaptDataOptions {
  data: readonly string[]
  /** Files whose rows must not be trained on. */
  evaluationSets: readonly string[]
  columns: Columns
  /** Share of the rows that is held out, by a hash of each. */
  validationFraction: number
  /** Jaccard index of two texts' runs of five words from which they count as nearly the same. */
  similarity: number
  /** Receives train.jsonl and validation.jsonl. */
  folder: string
}

/** A row of the data that also stands in an evaluation set. */
export interface Leak {
  /** File and line of the row, and of the evaluation row. */
  row: string
  evaluation: string
  /** 1 where both say the same; else the estimated Jaccard index. */
  similarity: number
}

export interface AdaptData {
  train: string
  validation: string
  rows: {
    read: number
    bad: number
    duplicates: number
    leaks: number
    nearValidation: number
    train: number
    validation: number
  }
  /** Rows that were left out, the first ones. */
  leaks: Leak[]
  /** The first bad rows with what is wrong with them. */
  bad: string[]
  kinds: Record<Example['kind'], number>
}

interface Read {
  at: string
  value: unknown
  example: Example
}

const MOST_NAMED = 20

/**
 * Checks, cleans and splits the data, and writes both parts. Throws UserError where an evaluation set is part of the data, where
 * no row can be used, and where nothing is left on one side.
 */
export async function prepareData(options: AdaptDataOptions): Promise<AdaptData> {
  const { data, evaluationSets, columns, validationFraction, similarity, folder } = options
  await refuseEvaluationFiles(data, evaluationSets)
  const exact = new Map<string, string>()
  const near = createNearIndex<string>()
  for await (const { at, example } of readAll(evaluationSets, columns, (problem) => {
    throw new UserError(problem)
  })) {
    for (const key of keysOf(example)) exact.set(key, at)
    near.add(at, textsOf(example).join('\n'))
  }
  const rows = { read: 0, bad: 0, duplicates: 0, leaks: 0, nearValidation: 0, train: 0, validation: 0 }
  const kinds = { text: 0, prompt: 0, messages: 0 }
  const leaks: Leak[] = []
  const bad: string[] = []
  const seen = new Set<string>()
  const kept: { train: Read[]; validation: Read[] } = { train: [], validation: [] }
  const onBad = (problem: string) => {
    rows.bad++
    if (bad.length < MOST_NAMED) bad.push(problem)
  }
  for await (const read of readAll(data, columns, onBad)) {
    rows.read++
    const text = textsOf(read.example).join('\n')
    const whole = normalised(text)
    if (seen.has(whole)) {
      rows.duplicates++
      continue
    }
    seen.add(whole)
    const same = keysOf(read.example)
      .map((key) => exact.get(key))
      .find((at) => at !== undefined)
    const found = same === undefined ? near.nearest(text, similarity) : { id: same, similarity: 1 }
    if (found) {
      rows.leaks++
      if (leaks.length < MOST_NAMED) leaks.push({ row: read.at, evaluation: found.id, similarity: found.similarity })
      continue
    }
    kinds[read.example.kind]++
    kept[pointOf([whole]) < validationFraction ? 'validation' : 'train'].push(read)
  }
  if (rows.read === 0)
    throw new UserError(
      bad.length > 0
        ? `${data.join(', ')}: none of ${rows.bad} rows can be used; the first: ${bad[0]}`
        : `${data.join(', ')}: no rows`,
    )
  if (rows.leaks > 0 && rows.leaks === rows.read - rows.duplicates)
    throw new UserError(`every row of the data stands in an evaluation set, the first at ${leaks[0]!.evaluation}`)
  // What is nearly held out would make the held-out rows look easier than they are.
  const heldOut = createNearIndex<string>()
  for (const { at, example } of kept.validation) heldOut.add(at, textsOf(example).join('\n'))
  const train = kept.train.filter(({ example }) => !heldOut.nearest(textsOf(example).join('\n'), similarity))
  rows.nearValidation = kept.train.length - train.length
  Object.assign(rows, { train: train.length, validation: kept.validation.length })
  if (train.length === 0 || kept.validation.length === 0)
    throw new UserError(
      `of ${rows.read} rows ${train.length} are left to train on and ${kept.validation.length} to hold out${bad.length > 0 ? `; the first bad row: ${bad[0]}` : ''}: give more data, or raise --validation-fraction`,
    )
  await makeFolder(folder)
  const files = { train: join(folder, 'train.jsonl'), validation: join(folder, 'validation.jsonl') }
  await writeTextAtomically(files.train, jsonl(train))
  await writeTextAtomically(files.validation, jsonl(kept.validation))
  return { ...files, rows, leaks, bad, kinds }
}

const jsonl = (rows: readonly Read[]): string => rows.map(({ value }) => `${JSON.stringify(value)}\n`).join('')

/** Throws where a file of an evaluation set is one of the data, by its contents. */
async function refuseEvaluationFiles(data: readonly string[], sets: readonly string[]): Promise<void> {
  const trained = new Map((await hashData(data)).map(({ sha256, name }) => [sha256, name]))
  for (const { name, sha256 } of await hashData(sets)) {
    const found = trained.get(sha256)
    if (found !== undefined)
      throw new UserError(
        `${found}: is the evaluation set ${name}, so that scores on it would say nothing; take it out of the data`,
      )
  }
}

/** What two rows must not share: everything that they say, and what they ask. */
function keysOf(example: Example): string[] {
  const whole = normalised(textsOf(example).join('\n'))
  if (example.kind === 'text') return [whole]
  const asked =
    example.kind === 'prompt' ? example.prompt : (example.messages.find(({ role }) => role === 'user')?.content ?? '')
  // Without marks a prompt such as (1,2) and one such as 1 2 are the same.
  return typeof asked === 'string' && asked.trim() !== '' ? [whole, `asked ${asked.trim()}`] : [whole]
}

async function* readAll(
  paths: readonly string[],
  columns: Columns,
  onBad: (problem: string) => void,
): AsyncGenerator<Read, void> {
  const names = columnNames(columns)
  for (const path of paths)
    for (const file of await findFiles(path))
      for await (const row of readRows(file, columnsRead(names))) {
        const at = `${file.path}:${row.line}`
        const example = 'error' in row ? row.error : readExample(row.value, names)
        if (typeof example === 'string') onBad(`${at}: ${example}`)
        else yield { at, value: 'value' in row ? row.value : undefined, example }
      }
}
