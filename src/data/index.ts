// Packed batches from files: an endless training stream that resumes exactly, a fixed list for validation, and a plain
// pass over the documents. Knows nothing about noise, graphs or models.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { cut, eosId, type Piece, type RenderOptions, toDocument } from './document.ts'
import type { Columns } from './example.ts'
import { type DataFile, findSources, type Source } from './files.ts'
import { checkSizes, createPacker, type PackOptions } from './pack.ts'
import { fingerprint, type Origin, parsePosition } from './position.ts'
import { createReporter, noDocuments, type Reporter } from './report.ts'
import { createEndless, type Located, readEpoch, type StreamOptions } from './stream.ts'
import type { Batch, BatchSource, DataReport, Document } from './types.ts'

export { encodePrompt } from './document.ts'
export type { Columns } from './example.ts'
export { describeReport } from './report.ts'
export { checkRows, heldOutShare } from './split.ts'
export type * from './types.ts'

export interface DocumentOptions {
  /**
   * Files, folders or globs. Without weights all documents are one source. Where any has a weight, each is a source of
   * its own, and a document is drawn from it with probability weight / sum of weights (1 where none is given).
   */
  paths: readonly (string | { path: string; weight?: number })[]
  tokenizer: Tokenizer
  seed: number
  /** Default `train`. */
  split?: 'train' | 'validation'
  /** Share of the documents held out, chosen by a hash of their text. Default 0. */
  validationFraction?: number
  /** How prompts are written. Default `chat` where the tokenizer has a chat template, else `plain`. */
  template?: 'chat' | 'plain'
  /** Between prompt and completion under `plain`. Default nothing. */
  separator?: string
  /** Which assistant turns of a chat may be masked. Default `all`. */
  turns?: 'all' | 'last'
  columns?: Columns
  /** What to do with a row that cannot be used: count and report it (default), or stop with a UserError. */
  badRows?: 'skip' | 'fail'
  /** Called when a pass (`readDocuments`, `validationBatches`) is over, with what was left out. */
  onReport?(report: DataReport): void
}

export interface DataOptions extends DocumentOptions {
  /** Rows of a batch. */
  rows: number
  /** Tokens of a row; a multiple of `blockSize`. */
  length: number
  /** Final block size: documents are padded with EOS to a multiple of it. */
  blockSize: number
  /** Documents among which the next one is chosen at random. Default 2048; 1 keeps the order of the files. */
  shuffleBuffer?: number
}

export interface DataSource extends BatchSource {
  report(): DataReport
  /** Closes the files. */
  close(): Promise<void>
}

const SHUFFLE_BUFFER = 2048

const MIX = 3
const POOL = 4

interface OpenDocument extends Origin {
  pieces: Piece[]
  next: number
}

interface PendingPiece extends Origin, Piece {
  index: number
}

/**
 * Opens an endless stream of batches; each epoch has another order.
 *
 * The pieces of a batch are drawn at random from a pool of open documents, so that a long document is spread over many
 * batches, and packed first-fit; a piece that finds no room waits for the next batch. A document is used once in each
 * epoch, though the last pieces of an epoch may come after the first of the next one.
 *
 * `position()` names documents by their ordinal in the shuffled order, not by contents, and stays small. `restore` finds
 * them again by reading the current epoch from its start without tokenising it: the cost is that of parsing the files
 * once, up to the position. It throws UserError where files or settings have changed.
 */
export async function openData(options: DataOptions): Promise<DataSource> {
  checkSizes(options)
  const sources = await sourcesOf(options)
  const rendering = renderOptions(options)
  const reporter = createReporter(sources, options.badRows)
  const streams = sources.map(({ files }, source) => createEndless(streamOptions(options, files, source, reporter)))
  const packOptions = toPackOptions(options)
  const poolSize = Math.max(16, 4 * options.rows)
  const { rows, length, blockSize, seed, split = 'train', validationFraction = 0, columns = {} } = options
  const identity = fingerprint(sources, {
    ...{ rows, length, blockSize, seed, split, validationFraction, columns, ...rendering },
    shuffleBuffer: options.shuffleBuffer ?? SHUFFLE_BUFFER,
    vocabSize: options.tokenizer.vocabSize,
  })

  let documentsDrawn = 0
  let piecesDrawn = 0
  let pool: OpenDocument[] = []
  let pending: PendingPiece[] = []

  function chooseSource(): number {
    let point = random(options.seed, MIX, documentsDrawn).uniform() * sources.reduce((sum, s) => sum + s.weight, 0)
    const chosen = sources.findIndex((source) => {
      point -= source.weight
      return point < 0
    })
    return chosen === -1 ? sources.length - 1 : chosen
  }

  async function openDocument(): Promise<OpenDocument> {
    const firstEpochs = streams.map((stream) => stream.position().epoch)
    for (;;) {
      const source = sources.length === 1 ? 0 : chooseSource()
      documentsDrawn++
      const { located, epoch, ordinal } = await streams[source]!.next()
      const pieces = toPieces(located, epoch)
      if (pieces.length > 0) return { source, epoch, ordinal, pieces, next: 0 }
      if (epoch > firstEpochs[source]! + 1) throw new UserError(noDocuments(options, reporter.report()))
    }
  }

  const toPieces = createRenderer(options, reporter).pieces

  async function nextPiece(): Promise<PendingPiece> {
    while (pool.length < poolSize) pool.push(await openDocument())
    const chosen = random(options.seed, POOL, piecesDrawn).integer(pool.length)
    piecesDrawn++
    const document = pool[chosen]!
    const { source, epoch, ordinal } = document
    const index = document.next++
    if (document.next === document.pieces.length) pool.splice(chosen, 1)
    return { source, epoch, ordinal, index, ...document.pieces[index]! }
  }

  return {
    async next() {
      const packed = await fillBatch(packOptions, pending, nextPiece)
      pending = packed.pending
      return packed.batch
    },
    position: () => ({
      ...identity,
      documentsDrawn,
      piecesDrawn,
      sources: streams.map((stream) => stream.position()),
      pool: pool.map(({ source, epoch, ordinal, next }) => ({ source, epoch, ordinal, next })),
      pending: pending.map(({ source, epoch, ordinal, index }) => ({ source, epoch, ordinal, index })),
    }),
    async restore(position) {
      const saved = parsePosition(position, identity, sources.length)
      const wanted = new Map<string, Piece[]>()
      const key = ({ source, epoch, ordinal }: Origin) => `${source} ${epoch} ${ordinal}`
      const origins = [...saved.pool, ...saved.pending]
      for (const origin of origins) wanted.set(key(origin), [])
      for (const [source, target] of saved.sources.entries()) {
        const epochs = origins.filter((origin) => origin.source === source).map((origin) => origin.epoch)
        await streams[source]!.replay(Math.min(target.epoch, ...epochs), target, ({ located, epoch, ordinal }) => {
          const name = key({ source, epoch, ordinal })
          if (wanted.has(name)) wanted.set(name, toPieces(located, epoch))
        })
      }
      const piecesOf = (origin: Origin, index: number) => {
        const pieces = wanted.get(key(origin))!
        if (pieces[index] === undefined) throw new UserError('the data has changed since the position was saved')
        return pieces
      }
      pool = saved.pool.map((origin) => ({ ...origin, pieces: piecesOf(origin, origin.next) }))
      pending = saved.pending.map((origin) => ({ ...origin, ...piecesOf(origin, origin.index)[origin.index]! }))
      documentsDrawn = saved.documentsDrawn
      piecesDrawn = saved.piecesDrawn
    },
    report: reporter.report,
    async close() {
      for (const stream of streams) await stream.close()
    },
  }
}

/**
 * A fixed list of batches from the held-out documents: the first pieces of text that hold `maxTokens` tokens together, each
 * once. Padding does not count, so that which text is taken does not depend on the block size or the rows of a batch.
 */
export async function validationBatches(options: DataOptions, maxTokens: number): Promise<Batch[]> {
  checkSizes(options)
  const sources = await sourcesOf(options)
  const files = sources.flatMap((source) => source.files)
  const reporter = createReporter(sources, options.badRows)
  const { pieces: toPieces } = createRenderer(options, reporter)
  const stream = readEpoch(streamOptions({ ...options, split: 'validation' }, files, 0, reporter), 0)
  const packOptions = toPackOptions(options)

  async function* readPieces() {
    let tokens = 0
    for await (const located of stream) {
      for (const piece of toPieces(located, 0)) {
        if (tokens >= maxTokens) return
        tokens += piece.ids.length
        yield piece
      }
    }
  }
  const pieces = readPieces()
  const nextPiece = async () => (await pieces.next()).value ?? undefined

  const batches: Batch[] = []
  let packed = await fillBatch(packOptions, [], nextPiece)
  while (packed.batch.tokens > 0) {
    batches.push(packed.batch)
    packed = await fillBatch(packOptions, packed.pending, nextPiece)
  }
  options.onReport?.(reporter.report())
  if (batches.length === 0) throw new UserError(noDocuments({ ...options, split: 'validation' }, reporter.report()))
  return batches
}

/** One pass over the documents of a split, uncut, in the order of the files. */
export async function* readDocuments(options: DocumentOptions): AsyncGenerator<Document, void> {
  const sources = await sourcesOf(options)
  const reporter = createReporter(sources, options.badRows)
  const { document } = createRenderer(options, reporter)
  const files = sources.flatMap((source) => source.files)
  try {
    for await (const located of readEpoch(streamOptions({ ...options, shuffleBuffer: 1 }, files, 0, reporter), 0)) {
      const rendered = document(located, 0)
      if (rendered) yield rendered
    }
  } finally {
    options.onReport?.(reporter.report())
  }
}

/** Packs waiting pieces, then new ones, until the batch is full or many in a row find no room; these wait. */
async function fillBatch<T extends Piece>(
  options: PackOptions,
  waiting: readonly T[],
  nextPiece: () => Promise<T | undefined>,
): Promise<{ batch: Batch; pending: T[] }> {
  const packer = createPacker(options)
  const pending = waiting.filter((piece) => !packer.place(piece))
  const lookahead = Math.max(8, 4 * options.rows)
  while (pending.length < lookahead && !packer.full()) {
    const piece = await nextPiece()
    if (piece === undefined) break
    if (!packer.place(piece)) pending.push(piece)
  }
  return { batch: packer.finish(), pending }
}

/** Renders examples, as documents or cut into pieces, and reports what cannot be used of them. */
function createRenderer(options: DocumentOptions & { length?: number }, reporter: Reporter) {
  const rendering = renderOptions(options)
  function document(located: Located, epoch: number): Document | undefined {
    const note = (what: string) => reporter.note(located, what, epoch)
    const id = `${located.file}:${located.line}`
    const rendered = toDocument(id, located.example, options.tokenizer, rendering, note)
    if (typeof rendered !== 'string') return rendered
    reporter.bad(located, rendered, epoch)
    return undefined
  }
  function pieces(located: Located, epoch: number): Piece[] {
    const { length = 0 } = options
    const rendered = document(located, epoch)
    if (!rendered) return []
    const hasPrompt = located.example.kind !== 'text'
    const parts = cut(rendered, length, hasPrompt)
    if (parts.length === 0) reporter.bad(located, `the prompt alone fills a row of ${length} tokens`, epoch)
    else {
      if (hasPrompt && rendered.ids.length > length)
        reporter.note(located, `longer than a row of ${length} tokens, so its end is left out`, epoch)
      reporter.read(epoch)
    }
    return parts
  }
  return { document, pieces }
}

/** Checks the options, and finds the files. */
function sourcesOf({ paths, validationFraction = 0 }: DocumentOptions): Promise<Source[]> {
  if (!(validationFraction >= 0 && validationFraction < 1)) {
    throw new UserError(`validationFraction is ${validationFraction}; it must be at least 0 and below 1`)
  }
  return findSources(paths)
}

function renderOptions({ tokenizer, template, separator = '', turns = 'all' }: DocumentOptions): RenderOptions {
  eosId(tokenizer)
  return { template: template ?? (tokenizer.chatTemplate === undefined ? 'plain' : 'chat'), separator, turns }
}

function toPackOptions({ rows, length, blockSize, tokenizer }: DataOptions): PackOptions {
  return { rows, length, blockSize, eosId: eosId(tokenizer), byteLength: tokenizer.byteLength }
}

function streamOptions(
  options: DocumentOptions & { shuffleBuffer?: number },
  files: DataFile[],
  source: number,
  reporter: Reporter,
): StreamOptions {
  const { shuffleBuffer = SHUFFLE_BUFFER } = options
  if (!Number.isInteger(shuffleBuffer) || shuffleBuffer < 1) {
    throw new UserError(`shuffleBuffer is ${shuffleBuffer}; it must be a whole number above 0`)
  }
  return {
    files,
    columns: options.columns ?? {},
    seed: options.seed,
    source,
    validationFraction: options.validationFraction ?? 0,
    split: options.split ?? 'train',
    shuffleBuffer,
    onBadRow: reporter.bad,
    onOtherSplit: reporter.other,
    onEmpty: () => {
      throw new UserError(noDocuments(options, reporter.report()))
    },
  }
}
