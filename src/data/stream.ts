// One pass over a set of files as a stream of examples: one side of the held-out split, shuffled within bounded memory.
// Knows nothing about tokens or batches.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { type Columns, columnNames, columnsRead, type Example, readExample, splitPoint, textsOf } from './example.ts'
import type { DataFile } from './files.ts'
import { readRows } from './rows.ts'

/** An example and where it stands. */
export interface Located {
  example: Example
  file: string
  line: number
}

export interface StreamOptions {
  files: readonly DataFile[]
  columns: Columns
  seed: number
  /** Distinguishes streams with the same seed. */
  source: number
  /** Share of the documents held out, by a hash of their text. */
  validationFraction: number
  split: 'train' | 'validation'
  /** Documents among which the next one is chosen; 1 keeps the order of the files. */
  shuffleBuffer: number
  /** Called for a row that cannot be used. */
  onBadRow(at: { file: string; line: number }, reason: string, epoch: number): void
  /** Called for a document that belongs to the other split. */
  onOtherSplit(epoch: number): void
  /** Called where an epoch has no example at all; does not return. */
  onEmpty(): never
}

// Bounds the shuffle buffer where documents are large: 32 Mi characters are 64 MiB at most.
const MAX_BUFFERED_CHARACTERS = 32 << 20

const FILE_ORDER = 1
const BUFFER = 2

/**
 * The examples of one epoch. The order depends on (seed, source, epoch) and the files alone: files in random order, and
 * within a window of `shuffleBuffer` documents each next one drawn at random.
 */
export async function* readEpoch(options: StreamOptions, epoch: number): AsyncGenerator<Located, void> {
  const { seed, source, shuffleBuffer } = options
  if (shuffleBuffer === 1) return yield* readInOrder(options, options.files, epoch)
  const files = random(seed, FILE_ORDER, source, epoch).shuffle([...options.files])
  const draw = random(seed, BUFFER, source, epoch)
  const buffer: Located[] = []
  let characters = 0

  function take(): Located {
    const chosen = draw.integer(buffer.length)
    const located = buffer[chosen]!
    buffer[chosen] = buffer.at(-1)!
    buffer.pop()
    characters -= length(located.example)
    return located
  }

  for await (const located of readInOrder(options, files, epoch)) {
    buffer.push(located)
    characters += length(located.example)
    while (buffer.length > shuffleBuffer || characters > MAX_BUFFERED_CHARACTERS) yield take()
  }
  while (buffer.length > 0) yield take()
}

async function* readInOrder(
  options: StreamOptions,
  files: readonly DataFile[],
  epoch: number,
): AsyncGenerator<Located, void> {
  const names = columnNames(options.columns)
  for (const file of files) {
    for await (const row of rowsOf(file, columnsRead(names))) {
      const example = 'error' in row ? row.error : readExample(row.value, names)
      if (typeof example === 'string') {
        options.onBadRow({ file: file.path, line: row.line }, example, epoch)
        continue
      }
      const heldOut = splitPoint(example) < options.validationFraction
      if (heldOut === (options.split === 'validation')) yield { example, file: file.path, line: row.line }
      else options.onOtherSplit(epoch)
    }
  }
}

async function* rowsOf(file: DataFile, columns: readonly string[]) {
  try {
    yield* readRows(file, columns)
  } catch (error) {
    if (error instanceof Error && 'code' in error) throw new UserError(`cannot read ${file.path}: ${error.message}`)
    throw error
  }
}

const length = (example: Example): number => textsOf(example).reduce((sum, text) => sum + text.length, 0)

/** An example with its place in the shuffled order. */
export interface Drawn {
  located: Located
  epoch: number
  ordinal: number
}

export interface Endless {
  next(): Promise<Drawn>
  /** The epoch and ordinal that the next example has, unless the epoch ends before it. */
  position(): { epoch: number; ordinal: number }
  /** Starts again at the beginning of `epoch`, passes every example up to `target` to `visit`, and stands there. */
  replay(epoch: number, target: { epoch: number; ordinal: number }, visit: (drawn: Drawn) => void): Promise<void>
  close(): Promise<void>
}

/** Epoch after epoch of the same files. */
export function createEndless(options: StreamOptions): Endless {
  let epoch = 0
  let ordinal = 0
  let stream: AsyncGenerator<Located, void> | undefined

  async function next(): Promise<Drawn> {
    for (;;) {
      stream ??= readEpoch(options, epoch)
      const { value } = await stream.next()
      if (value) return { located: value, epoch, ordinal: ordinal++ }
      if (ordinal === 0) options.onEmpty()
      stream = undefined
      epoch++
      ordinal = 0
    }
  }

  async function close(): Promise<void> {
    await stream?.return()
    stream = undefined
  }

  return {
    next,
    close,
    position: () => ({ epoch, ordinal }),
    async replay(first, target, visit) {
      await close()
      epoch = first
      ordinal = 0
      while (epoch < target.epoch || (epoch === target.epoch && ordinal < target.ordinal)) visit(await next())
      if (epoch !== target.epoch || ordinal !== target.ordinal) {
        throw new UserError('the data has changed since the position was saved: it has other documents now')
      }
    },
  }
}
