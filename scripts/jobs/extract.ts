// Makes the data of the job "extract": described records, to be written as JSON. `npx tsx scripts/jobs/extract.ts [FOLDER]
// [--train-rows N]` (default runs/jobs/extract, as many rows as there are up to 20,000). Writes train.jsonl, validation.jsonl,
// test-0.jsonl to test-2.jsonl and schemas/KIND.json. What is held out are whole records, by a hash of what they say. Prints
// the rows of each file by kind.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Random, random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { writeJsonl } from '../../src/data/synthetic.ts'
import { splitOf } from '../../src/tasks/index.ts'
import { type DataRecord, type RecordKind, recordKinds, recordsOf } from './records.ts'
import { describe, schemaOf, type Value } from './wordings.ts'

const [TRAIN_ROWS, HELD_ROWS, TEST_DRAWS] = [20_000, 200, 3]

/** Share of the fields that are not said although the record has them. */
const UNSAID = 0.2

/** Share of the fields without a value that the text says not to be known. */
const SAID_UNKNOWN = 0.3

export interface ExtractRow {
  prompt: string
  completion: string
  kind: RecordKind
}

/** A record's description and JSON; the same for the same seed and index. */
export function extractRow(kind: RecordKind, record: DataRecord, seed: number, index: number): ExtractRow {
  const draw = random(seed, 0x72656373, recordKinds.indexOf(kind), index)
  const keys = Object.keys(record)
  const known = keys.filter((key) => record[key] !== null)
  const said = new Set(draw.shuffle([...known]).slice(0, Math.max(2, known.length - unsaid(known.length, draw))))
  const unknown = keys.filter((key) => !said.has(key) && draw.uniform() < SAID_UNKNOWN)
  const inOrder = [...said].map((key): [string, Value] => [key, record[key]!])
  const json = Object.fromEntries(keys.map((key) => [key, said.has(key) ? record[key] : null]))
  return {
    prompt: `Write the record as JSON with the keys ${keys.join(', ')}.\n${describe(kind, inOrder, unknown, draw)}`,
    completion: JSON.stringify(json),
    kind,
  }
}

const unsaid = (count: number, draw: Random): number =>
  Array.from({ length: count }, () => draw.uniform()).filter((value) => value < UNSAID).length

/** The rows of each file, by its name. What a held-out row says in JSON is the completion of no training row. */
export function extractFiles(
  records: ReadonlyMap<RecordKind, readonly DataRecord[]>,
  trainRows = TRAIN_ROWS,
): Map<string, ExtractRow[]> {
  const heldRows = HELD_ROWS * (TEST_DRAWS + 1)
  const rows = (split: 'train' | 'test', seed: number) =>
    inTurn([...records].map(([kind, all]) => shuffledRows(kind, all, split, seed)))
  const held = random(1).shuffle(unique(rows('test', 1)).slice(0, heldRows))
  if (held.length < heldRows) throw new UserError(`${held.length} records to hold out; ${heldRows} are needed`)
  const kept = new Set(held.map(({ completion }) => completion))
  const train = rows('train', 0).filter(({ completion }) => !kept.has(completion))
  const part = (index: number) => held.slice(index * HELD_ROWS, (index + 1) * HELD_ROWS)
  return new Map([
    ['train', random(0).shuffle(train.slice(0, trainRows))],
    ['validation', part(0)],
    ...Array.from({ length: TEST_DRAWS }, (_, draw): [string, ExtractRow[]] => [`test-${draw}`, part(draw + 1)]),
  ])
}

function shuffledRows(kind: RecordKind, all: readonly DataRecord[], split: string, seed: number): ExtractRow[] {
  const some = all.filter((record) => splitOf(`${kind} ${JSON.stringify(record)}`) === split)
  return random(seed, recordKinds.indexOf(kind))
    .shuffle([...some])
    .map((record, index) => extractRow(kind, record, seed, index))
}

/** One of each list, then the next of each, until all have run out: the first rows hold as much of each as there is. */
function inTurn<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(...lists.map((list) => list.length))
  return Array.from({ length: longest }, (_, i) =>
    lists.filter((list) => i < list.length).map((list) => list[i]!),
  ).flat()
}

const unique = (rows: readonly ExtractRow[]): ExtractRow[] => [
  ...new Map(rows.map((row) => [row.completion, row])).values(),
]

async function main(folder: string, trainRows: number): Promise<void> {
  const files = extractFiles(new Map(recordKinds.map((kind) => [kind, recordsOf(kind)])), trainRows)
  mkdirSync(join(folder, 'schemas'), { recursive: true })
  for (const kind of recordKinds) {
    const file = join(folder, 'schemas', `${kind}.json`)
    writeFileSync(`${file}.tmp`, `${JSON.stringify(schemaOf(kind), undefined, 2)}\n`)
    renameSync(`${file}.tmp`, file)
  }
  for (const [name, rows] of files) {
    await writeJsonl(join(folder, `${name}.jsonl`), rows)
    const kinds = recordKinds.map((kind) => `${kind} ${rows.filter((row) => row.kind === kind).length}`)
    console.log(`${name}: ${rows.length} rows: ${kinds.join(', ')}`)
  }
}

if (import.meta.filename === process.argv[1]) {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { 'train-rows': { type: 'string', default: String(TRAIN_ROWS) } },
    })
    const trainRows = Number(values['train-rows'])
    if (positionals.length > 1 || !Number.isInteger(trainRows) || trainRows < 1)
      throw new UserError('usage: npx tsx scripts/jobs/extract.ts [FOLDER] [--train-rows N]')
    await main(positionals[0] ?? join('runs', 'jobs', 'extract'), trainRows)
  } catch (error) {
    if (!(error instanceof UserError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS'))) throw error
    console.error((error as Error).message)
    process.exitCode = 1
  }
}
