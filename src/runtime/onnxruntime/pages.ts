// Memory of the process, on Linux: what the C library and the system would keep although nobody needs it.
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import koffi, { type LibraryHandle } from 'koffi'

/** madvise's advice that pages are not needed now. */
const MADV_DONTNEED = 4

/** mallopt's name for the size from which on a block is a mapping of its own, and what it is at first. */
const M_MMAP_THRESHOLD = -3
const FIRST_MMAP_THRESHOLD = 128 * 1024

const linux = process.platform === 'linux' ? memoryFunctions(koffi.load('libc.so.6')) : undefined

function memoryFunctions(libc: LibraryHandle) {
  return {
    mallopt: libc.func('mallopt', 'int', ['int', 'int']),
    trim: libc.func('malloc_trim', 'int', ['size_t']),
    madvise: libc.func('madvise', 'int', ['uintptr_t', 'size_t', 'int']),
  }
}

/**
 * Keeps blocks from 128 kB on mappings of their own, as they are in a new process: once a larger one has been freed, glibc
 * takes all up to its size from a heap, where weights that are freed while others are packed leave holes.
 */
export function freeLargeBlocksAtOnce(): void {
  linux?.mallopt(M_MMAP_THRESHOLD, FIRST_MMAP_THRESHOLD)
}

/**
 * Gives memory back to the system that is free once a session is made: pages of what was freed on the way, and of mapped
 * files in `folder`. A session keeps weights packed, and the scales that went into them stay mapped though nobody reads them
 * again. What somebody does read comes back from the file; a mapping with pages of its own is left alone.
 */
export function giveBack(folder: string | undefined): void {
  linux?.trim(0)
  if (!linux || !folder) return
  const mapping = /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(\/.*)\n(?:[A-Z].*\n)*?Anonymous: +0 kB$/gm
  for (const [, from, to, path] of readFileSync('/proc/self/smaps', 'utf8').matchAll(mapping)) {
    if (dirname(path) !== folder) continue
    const start = BigInt(`0x${from}`)
    linux.madvise(start, BigInt(`0x${to}`) - start, MADV_DONTNEED)
  }
}
