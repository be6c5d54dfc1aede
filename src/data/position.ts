// The saved position of a data source: its shape, and whether it belongs to these files and settings.
import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { z } from 'zod'
import { UserError } from '../core/types.ts'
import { check, describeProblems } from '../formats/check.ts'
import type { DataPosition } from './types.ts'

const count = z.number().int().nonnegative()
const originSchema = z.object({ source: count, epoch: count, ordinal: count })

/** A document's place: source, epoch, and ordinal in the shuffled order of that epoch. */
export type Origin = z.infer<typeof originSchema>

const positionSchema = z.object({
  files: z.string(),
  settings: z.string(),
  documentsDrawn: count,
  piecesDrawn: count,
  sources: z.array(z.object({ epoch: count, ordinal: count })),
  pool: z.array(originSchema.extend({ next: count })),
  pending: z.array(originSchema.extend({ index: count })),
})

export type SavedPosition = z.infer<typeof positionSchema>

/** What must be the same for a position to mean the same batches. Files count by name and size, not by folder. */
export function fingerprint(
  sources: readonly { files: readonly { path: string; size: number }[]; weight: number }[],
  settings: Record<string, unknown>,
): Pick<SavedPosition, 'files' | 'settings'> {
  const files = sources.map(({ files, weight }) => [weight, ...files.map(({ path, size }) => [basename(path), size])])
  const hash = createHash('sha256').update(JSON.stringify(files)).digest('hex').slice(0, 16)
  return { files: `${files.flat().length - files.length} files, ${hash}`, settings: JSON.stringify(settings) }
}

/** Checks a position that was saved, and that it was saved for the same files and settings. */
export function parsePosition(
  position: DataPosition,
  expected: Pick<SavedPosition, 'files' | 'settings'>,
  sources: number,
): SavedPosition {
  const checked = check(positionSchema, position)
  if ('problems' in checked)
    throw new UserError(`the saved data position is damaged: ${describeProblems(checked.problems)}`)
  const { data } = checked
  if (data.sources.length !== sources || [...data.pool, ...data.pending].some((o) => o.source >= sources)) {
    throw new UserError('the saved data position is damaged: unknown source')
  }
  for (const what of ['files', 'settings'] as const) {
    if (data[what] !== expected[what]) {
      throw new UserError(
        `the data ${what} have changed since the position was saved (then ${data[what]}, now ` +
          `${expected[what]}); resume with the same ones, or start a new run`,
      )
    }
  }
  return data
}
