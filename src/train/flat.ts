// All parameters in one flat buffer: the optimiser sees a single array, the model sees views into it.

/** Elements per chunk of the flat buffers; see the optimiser's Scan. */
const CHUNK = 65536

export interface FlatLayout {
  /** Where each parameter starts, and its shape. */
  entries: ReadonlyMap<string, { offset: number; size: number; shape: readonly number[] }>
  chunk: number
  chunks: number
  /** The first chunks hold the parameters that decay, the others the rest. */
  decayed: number
  /** chunks * chunk; what no parameter fills is padding and stays 0. */
  size: number
}

export function flatLayout(
  parameters: ReadonlyMap<string, readonly number[]>,
  decays: (name: string) => boolean,
): FlatLayout {
  const groups = [true, false].map((decayed) => [...parameters].filter(([name]) => decays(name) === decayed))
  // 16 floats are a cache line, which is also the widest vector.
  const room = (shape: readonly number[]) => Math.ceil(shape.reduce((a, b) => a * b, 1) / 16) * 16
  const sizes = groups.map((group) => group.reduce((sum, [, shape]) => sum + room(shape), 0))
  const chunk = Math.min(CHUNK, Math.max(...sizes))
  const [decayed, others] = sizes.map((size) => Math.ceil(size / chunk))
  const entries = new Map<string, { offset: number; size: number; shape: readonly number[] }>()
  for (const [i, group] of groups.entries()) {
    let offset = i * decayed! * chunk
    for (const [name, shape] of group) {
      entries.set(name, { offset, size: shape.reduce((a, b) => a * b, 1), shape })
      offset += room(shape)
    }
  }
  const chunks = decayed! + others!
  return { entries, chunk, chunks, decayed: decayed!, size: chunks * chunk }
}
