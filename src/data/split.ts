// Looks at data before anything that takes long: whether there are rows that can be used, and which part of them to hold out.
// Knows nothing about tokens.
import { UserError } from '../core/types.ts'
import { splitPoint } from './example.ts'
import { findSources } from './files.ts'
import type { DocumentOptions } from './index.ts'
import { createReporter, noDocuments } from './report.ts'
import { readEpoch } from './stream.ts'

/** Distance of the hashes that decide who is held out. */
const STEP = 2 ** -32

/**
 * The share to hold out: `validationFraction`, or where of few documents that would be none or all, the share that holds out,
 * or keeps, one of them. 0 stays 0. Reads until a row for each side is found.
 *
 * @throws UserError where a source has no row that can be used, a row is bad that must not be, or there is only one document to
 * be held out from.
 */
export async function heldOutShare(
  options: Pick<DocumentOptions, 'paths' | 'columns' | 'badRows' | 'validationFraction'>,
): Promise<number> {
  const { validationFraction = 0, columns = {}, badRows } = options
  let low = 1
  let high = -1
  const isParted = () => validationFraction === 0 || (low < validationFraction && high >= validationFraction)
  const sources = await findSources(options.paths)
  for (const [index, source] of sources.entries()) {
    const reporter = createReporter([source], badRows)
    const onEmpty = (): never => {
      const paths = sources.length === 1 ? options.paths : [options.paths[index]!]
      throw new UserError(noDocuments({ paths }, reporter.report()))
    }
    const all = { split: 'train', validationFraction: 0, seed: 0, source: index, shuffleBuffer: 1 } as const
    const report = { onBadRow: reporter.bad, onOtherSplit: reporter.other, onEmpty }
    let isEmpty = true
    for await (const { example } of readEpoch({ ...all, ...report, files: source.files, columns }, 0)) {
      isEmpty = false
      const point = splitPoint(example)
      low = Math.min(low, point)
      high = Math.max(high, point)
      if (isParted()) break
    }
    if (isEmpty) onEmpty()
  }
  if (isParted()) return validationFraction
  if (low === high)
    throw new UserError(
      'the data hold only one document, which cannot be both trained on and held out: name held-out data with --validation-path',
    )
  return low >= validationFraction ? low + STEP : high
}

/** Throws UserError where a source has no row that can be used, or a row is bad that must not be. */
export async function checkRows(options: Pick<DocumentOptions, 'paths' | 'columns' | 'badRows'>): Promise<void> {
  await heldOutShare({ ...options, validationFraction: 0 })
}
