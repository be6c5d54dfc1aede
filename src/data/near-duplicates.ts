// Which texts are nearly the same: MinHash (Broder, 1997) over runs of words, found by bands of hashes (locality-sensitive
// hashing). Knows nothing about files.

/** Words of a run. A text with fewer words is one run. */
const RUN = 5
const HASHES = 128
/** Rows of a band: texts of similarity s meet in one of HASHES / BAND bands with the probability 1 - (1 - s^BAND)^(HASHES / BAND). */
const BAND = 4

/** A text without case, punctuation and spacing. */
export const normalised = (text: string): string =>
  text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim()

/** FNV-1a over UTF-16 code units, with the final mix of MurmurHash3. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return mixed(hash)
}

function mixed(value: number): number {
  let hash = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

const multipliers = Uint32Array.from({ length: HASHES }, (_, i) => mixed(2 * i + 1) | 1)
const offsets = Uint32Array.from({ length: HASHES }, (_, i) => mixed(0x9e3779b9 + i))

/** The least of each of 128 hashes over the text's runs of words. The share of equal ones estimates the runs' Jaccard index. */
export function signatureOf(text: string): Uint32Array {
  const words = normalised(text).split(' ')
  const least = new Uint32Array(HASHES).fill(0xffff_ffff)
  for (let start = 0; start === 0 || start + RUN <= words.length; start++) {
    const hash = hashOf(words.slice(start, start + RUN).join(' '))
    for (let i = 0; i < HASHES; i++) {
      const value = mixed(Math.imul(hash, multipliers[i]!) + offsets[i]!)
      if (value < least[i]!) least[i] = value
    }
  }
  return least
}

/** The estimated Jaccard index of two texts' runs of words. */
export const similarity = (a: Uint32Array, b: Uint32Array): number =>
  a.reduce((equal, value, i) => equal + Number(value === b[i]), 0) / HASHES

export interface NearIndex<Id> {
  add(id: Id, text: string): void
  /** The most similar text among those that were added, if it is at least this similar. */
  nearest(text: string, least: number): { id: Id; similarity: number } | undefined
}

export function createNearIndex<Id>(): NearIndex<Id> {
  const entries: { id: Id; signature: Uint32Array }[] = []
  const buckets = new Map<string, number[]>()
  const bandsOf = (signature: Uint32Array) =>
    Array.from(
      { length: HASHES / BAND },
      (_, band) => `${band} ${signature.subarray(band * BAND, (band + 1) * BAND).join()}`,
    )
  return {
    add(id, text) {
      const signature = signatureOf(text)
      for (const band of bandsOf(signature)) {
        const bucket = buckets.get(band)
        if (bucket) bucket.push(entries.length)
        else buckets.set(band, [entries.length])
      }
      entries.push({ id, signature })
    },
    nearest(text, least) {
      const signature = signatureOf(text)
      let best: { id: Id; similarity: number } | undefined
      for (const at of new Set(bandsOf(signature).flatMap((band) => buckets.get(band) ?? []))) {
        const { id, signature: other } = entries[at]!
        const similar = similarity(signature, other)
        if (similar >= least && similar > (best?.similarity ?? 0)) best = { id, similarity: similar }
      }
      return best
    },
  }
}
