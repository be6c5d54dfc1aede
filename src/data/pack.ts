// Packs pieces of documents into the rows of a batch. Knows nothing about where they come from.
import { UserError } from '../core/types.ts'
import { isScored } from './scored.ts'
import type { Batch } from './types.ts'

export interface Packable {
  id: string
  ids: Int32Array
  maskable: Uint8Array
}

export interface PackOptions {
  rows: number
  /** Tokens of a row; a multiple of `blockSize`. */
  length: number
  /** Final block size: every document starts on a multiple of it and is padded up to one. */
  blockSize: number
  /** What documents are padded with, and what the tail of a row holds. */
  eosId: number
  /** Bytes of text that ids stand for, a sum over the ids (`Tokenizer.byteLength`). */
  byteLength(ids: ArrayLike<number>): number
}

export interface Packer {
  /** Puts the piece into the first row that has room for it; false where none has. */
  place(piece: Packable): boolean
  /** Places all of the pieces or none. Indices of their first tokens in [rows, length]; undefined where there is no room. */
  placeTogether(pieces: readonly Packable[]): number[] | undefined
  /** No row has room for a block. */
  full(): boolean
  /** The batch of what has been placed. */
  finish(): Batch
}

/** Checks sizes that a user sets. */
export function checkSizes({ rows, length, blockSize }: Pick<PackOptions, 'rows' | 'length' | 'blockSize'>): void {
  for (const [name, value] of Object.entries({ rows, length, blockSize })) {
    if (!Number.isInteger(value) || value < 1)
      throw new UserError(`${name} is ${value}; it must be a whole number above 0`)
  }
  if (length % blockSize !== 0) {
    throw new UserError(`length ${length} is not a multiple of the block size ${blockSize}`)
  }
}

/** First fit into `rows` rows of `length` tokens; see `Batch` for the layout. */
export function createPacker(options: PackOptions): Packer {
  const { rows, length, blockSize, eosId } = options
  const used = new Array<number>(rows).fill(0)
  const documentsInRow = new Array<number>(rows).fill(0)
  const ids = new Int32Array(rows * length).fill(eosId)
  const documents = new Int32Array(rows * length).fill(-1)
  const positions = new Int32Array(rows * length)
  const maskable = new Uint8Array(rows * length)
  const padding = new Uint8Array(rows * length)
  const documentIds: string[] = []
  let tokens = 0

  const paddedSize = (piece: Packable) => Math.ceil(piece.ids.length / blockSize) * blockSize

  function put(piece: Packable, row: number): number {
    const size = piece.ids.length
    const padded = paddedSize(piece)
    const start = row * length + used[row]!
    ids.set(piece.ids, start)
    maskable.set(piece.maskable, start)
    maskable.fill(1, start + size, start + padded)
    padding.fill(1, start + size, start + padded)
    documents.fill(documentsInRow[row]!, start, start + padded)
    for (let i = 0; i < padded; i++) positions[start + i] = i
    used[row]! += padded
    documentsInRow[row]!++
    documentIds.push(piece.id)
    tokens += padded
    return start
  }

  function placeTogether(pieces: readonly Packable[]): number[] | undefined {
    const after = [...used]
    const rowOf: number[] = []
    for (const piece of pieces) {
      const row = after.findIndex((taken) => taken + paddedSize(piece) <= length)
      if (row === -1) return undefined
      after[row]! += paddedSize(piece)
      rowOf.push(row)
    }
    return pieces.map((piece, i) => put(piece, rowOf[i]!))
  }

  return {
    place: (piece) => placeTogether([piece]) !== undefined,
    placeTogether,
    full: () => used.every((taken) => taken + blockSize > length),
    finish() {
      const layout = { rows, length, ids, documents, positions, maskable, padding }
      const bytes = options.byteLength(ids.filter((_, i) => isScored(layout, i)))
      return { ...layout, documentIds, tokens, bytes }
    },
  }
}
