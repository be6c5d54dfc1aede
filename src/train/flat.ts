// All parameters in one flat buffer: the optimiser sees a single array, the model sees views into it.

/** Elements per chunk of the flat buffers; see the optimiser's Scan. */
export const CHUNK = 65536

export interface FlatLayout {
  /** Where each parameter starts, and its shape. */
  entries: ReadonlyMap<string, { offset: number; size: number; shape: readonly number[] }>
  chunk: number
  chunks: number
  /** chunks * chunk; the tail is padding and stays 0. */
  size: number
}

export function flatLayout(parameters: ReadonlyMap<string, readonly number[]>): FlatLayout {
  const entries = new Map<string, { offset: number; size: number; shape: readonly number[] }>()
  let offset = 0
  for (const [name, shape] of parameters) {
    const size = shape.reduce((a, b) => a * b, 1)
    entries.set(name, { offset, size, shape })
    // 16 floats are a cache line, which is also the widest vector.
    offset += Math.ceil(size / 16) * 16
  }
  const chunk = Math.min(CHUNK, offset)
  const chunks = Math.ceil(offset / chunk)
  return { entries, chunk, chunks, size: chunks * chunk }
}
