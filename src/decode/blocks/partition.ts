// How a document is cut into blocks.
import type { Document } from './types.ts'

export interface Partition {
  /** Where a block starts; the one behind the last is the end of all. */
  start(index: number): number
  blockAt(position: number): number
  /** The last start of a block that is at most `length` behind `position`, or else the first one. */
  boundary(position: number, length: number): number
}

export function createPartition(blocks: Document['blocks'], most: number): Partition {
  if (typeof blocks === 'number')
    return {
      start: (index) => Math.min(index * blocks, most),
      blockAt: (position) => Math.floor(position / blocks),
      boundary: (position, length) =>
        Math.max(Math.floor((position + length) / blocks), Math.floor(position / blocks) + 1) * blocks,
    }
  return {
    start: (index) => blocks[index] ?? most,
    blockAt(position) {
      let index = blocks.length - 1
      while (index > 0 && blocks[index] > position) index--
      return index
    },
    boundary(position, length) {
      const later = [...blocks, most].filter((start) => start > position)
      return later.filter((start) => start <= position + length).at(-1) ?? later[0]
    },
  }
}

export const range = (start: number, end: number): number[] =>
  Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i)
