// Two packed rows of 12 tokens: three documents, some with a prompt, one position of padding. Used by tests only.
import type { Batch } from '../src/data/types.ts'

const [rows, length] = [2, 12]

/** Its tokens are below `vocabulary`. */
export const packedBatch = (vocabulary: number): Batch => ({
  rows,
  length,
  ids: Int32Array.from({ length: rows * length }, (_, i) => (i * 7 + 3) % vocabulary),
  documents: Int32Array.from([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
  positions: Int32Array.from([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
  maskable: Uint8Array.from([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
  padding: new Uint8Array(rows * length),
  documentIds: ['a', 'b', 'c'],
  tokens: 23,
  bytes: 23,
})
