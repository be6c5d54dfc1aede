// Preference pairs from files, tokenised and in memory, and batches of them: an endless stream and a fixed list. A batch holds
// whole pairs. Knows nothing about models.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { cut, type RenderOptions, toDocument } from './document.ts'
import { pointOf } from './example.ts'
import { findSources } from './files.ts'
import { createPacker, type Packable, type PackOptions } from './pack.ts'
import {
  type Preference,
  type PreferenceColumns,
  preferenceColumns,
  preferenceColumnsRead,
  readPreference,
} from './preference.ts'
import { createReporter, noDocuments } from './report.ts'
import { readRows } from './rows.ts'
import type { Batch, BatchSource, DataReport, Pair, PairLikelihoods } from './types.ts'

/** A pair as token ids. */
export interface PairDocuments {
  /** Its number among all pairs of a data set. */
  id: number
  chosen: Packable
  rejected: Packable
}

export interface PairOptions {
  /** Files, folders or globs. */
  paths: readonly string[]
  tokenizer: Tokenizer
  rendering: RenderOptions
  columns?: PreferenceColumns
  /** Tokens of a row: an answer that is longer with its prompt loses its end. */
  length: number
  /** What to do with a row that cannot be used: stop with a UserError that names it (default), or count it. */
  badRows?: 'skip' | 'fail'
  /** Pairs have numbers from here on. Default 0. */
  firstId?: number
}

/** Pairs in the order of the files, each with the number in [0, 1) that its prompt alone decides: the side of a split. */
export async function readPairs(
  options: PairOptions,
): Promise<{ pairs: PairDocuments[]; points: number[]; report: DataReport }> {
  const { paths, tokenizer, rendering, length, badRows = 'fail', firstId = 0 } = options
  const names = preferenceColumns(options.columns ?? {})
  const sources = await findSources(paths)
  const reporter = createReporter(sources, badRows)
  const pairs: PairDocuments[] = []
  const points: number[] = []
  for (const file of sources.flatMap((source) => source.files))
    for await (const row of readRows(file, preferenceColumnsRead(names))) {
      const at = { file: file.path, line: row.line }
      const read = 'error' in row ? row.error : readPreference(row.value, names)
      const note = (what: string) => reporter.note(at, what, 0)
      const rendered = typeof read === 'string' ? read : toPieces(`${at.file}:${at.line}`, read, note)
      if (typeof rendered === 'string') {
        reporter.bad(at, rendered, 0)
        continue
      }
      reporter.read(0)
      pairs.push({ id: firstId + pairs.length, ...rendered })
      points.push(pointOf((read as Preference).prompt))
    }
  if (pairs.length === 0) throw new UserError(noDocuments({ paths }, reporter.report()))
  return { pairs, points, report: reporter.report() }

  function toPieces(id: string, preference: Preference, note: (what: string) => void) {
    const pieces: Packable[] = []
    for (const example of [preference.chosen, preference.rejected]) {
      const document = toDocument(id, example, tokenizer, rendering, note)
      if (typeof document === 'string') return document
      const [piece] = cut(document, length, true)
      if (!piece) return `the prompt alone fills a row of ${length} tokens`
      if (document.ids.length > length) note(`longer than a row of ${length} tokens, so its end is left out`)
      pieces.push(piece)
    }
    const [chosen, rejected] = pieces as [Packable, Packable]
    if (!samePrompts(chosen, rejected)) return 'the prompts differ once the chat template has written them'
    if (chosen.ids.join() === rejected.ids.join())
      return `chosen and rejected are the same in the first ${length} tokens`
    return { chosen, rejected }
  }
}

const promptOf = ({ ids, maskable }: Packable): string => ids.subarray(0, maskable.indexOf(1)).join()
const samePrompts = (a: Packable, b: Packable): boolean => promptOf(a) === promptOf(b)

/**
 * Which pairs are held out: those below the share, and of few pairs one prompt at least, but not all. Pairs with one prompt
 * are on one side. Throws UserError where there is only one prompt.
 */
export function splitPairs(
  pairs: readonly PairDocuments[],
  points: readonly number[],
  share: number,
): { train: PairDocuments[]; heldOut: PairDocuments[] } {
  const sorted = [...new Set(points)].sort((a, b) => a - b)
  if (sorted.length < 2)
    throw new UserError(
      'the pairs have only one prompt, which cannot be both trained on and held out: name held-out pairs with --validation-path',
    )
  const limit = Math.min(Math.max(sorted.filter((point) => point < share).length, 1), sorted.length - 1)
  const isHeldOut = (_: PairDocuments, i: number) => points[i]! < sorted[limit]!
  return { heldOut: pairs.filter(isHeldOut), train: pairs.filter((pair, i) => !isHeldOut(pair, i)) }
}

/** Tokens of the pairs with their padding, as batches count them. */
export const tokensOf = (pairs: readonly PairDocuments[], blockSize: number): number =>
  pairs
    .flatMap(({ chosen, rejected }) => [chosen, rejected])
    .reduce((sum, { ids }) => sum + Math.ceil(ids.length / blockSize) * blockSize, 0)

/** What the reference model says of a pair in an epoch. */
export type ReferenceOf = (id: number, epoch: number) => PairLikelihoods | undefined

/** Packs pairs one after the other until one finds no room. */
function packPairs(
  options: PackOptions,
  next: () => { pair: PairDocuments; epoch: number } | undefined,
  taken: () => void,
  referenceOf: ReferenceOf,
): Batch {
  const packer = createPacker(options)
  const pairs: Pair[] = []
  for (let drawn = next(); drawn !== undefined; drawn = next()) {
    const { pair, epoch } = drawn
    const starts = packer.placeTogether([pair.chosen, pair.rejected])
    if (!starts) break
    const reference = referenceOf(pair.id, epoch)
    pairs.push({ id: pair.id, epoch, chosen: starts[0]!, rejected: starts[1]!, reference })
    taken()
  }
  return { ...packer.finish(), pairs }
}

const ORDER = 0x7061_6f72

/**
 * An endless stream: each epoch in another order. A batch is a function of the number of pairs before it. It has two rows at
 * least, so that a pair always finds room.
 */
export function pairSource(
  pairs: readonly PairDocuments[],
  options: PackOptions & { seed: number; referenceOf?: ReferenceOf },
): BatchSource {
  const { seed, referenceOf = () => undefined } = options
  let drawn = 0
  let order: { epoch: number; pairs: readonly PairDocuments[] } | undefined
  const next = () => {
    const epoch = Math.floor(drawn / pairs.length)
    if (order?.epoch !== epoch) order = { epoch, pairs: random(seed, ORDER, epoch).shuffle([...pairs]) }
    return { pair: order.pairs[drawn % pairs.length]!, epoch }
  }
  return {
    next: async () => packPairs(options, next, () => drawn++, referenceOf),
    position: () => ({ drawn, pairs: pairs.length }),
    async restore(position) {
      if (position.pairs !== pairs.length || !Number.isSafeInteger(position.drawn) || (position.drawn as number) < 0)
        throw new UserError('the pairs have changed since the position was saved')
      drawn = position.drawn as number
    },
  }
}

/** Each pair once, in order. */
export function pairBatches(
  pairs: readonly { pair: PairDocuments; epoch: number }[],
  options: PackOptions,
  referenceOf: ReferenceOf = () => undefined,
): Batch[] {
  const batches: Batch[] = []
  let done = 0
  while (done < pairs.length)
    batches.push(
      packPairs(
        options,
        () => pairs[done],
        () => done++,
        referenceOf,
      ),
    )
  return batches
}
