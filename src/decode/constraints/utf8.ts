// Ranges of code points as sequences of byte ranges, since models write bytes.

/** One byte range per byte of the encoding: [low, high, low, high, ...], 1 to 4 pairs. */
export type ByteRanges = readonly number[]

/** Last code point of each length of encoding. */
const LAST = [0x7f, 0x7ff, 0xffff, 0x10ffff]

const encode = (code: number): number[] => {
  if (code <= 0x7f) return [code]
  if (code <= 0x7ff) return [0xc0 | (code >> 6), 0x80 | (code & 63)]
  if (code <= 0xffff) return [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)]
  return [0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)]
}

/** The encodings of the code points from `first` to `last` (no surrogates between) as disjoint sequences of byte ranges. */
export function utf8Ranges(first: number, last: number): ByteRanges[] {
  const sequences: ByteRanges[] = []
  for (const end of LAST) {
    if (first > last) break
    if (first <= end) {
      split(encode(first), encode(Math.min(last, end)), sequences)
      first = end + 1
    }
  }
  return sequences
}

/** Encodings of one length between two of them: where a byte differs, the bytes behind it must range over everything. */
function split(low: readonly number[], high: readonly number[], out: ByteRanges[]): void {
  const { length } = low
  let i = 0
  while (i < length && low[i] === high[i]) i++
  const prefix = low.slice(0, i).flatMap((byte) => [byte, byte])
  if (i >= length - 1) {
    out.push(i === length ? prefix : [...prefix, low[i], high[i]])
    return
  }
  const rest = length - i - 1
  const full = Array.from({ length: rest }, () => [0x80, 0xbf]).flat()
  let from = low[i]
  let to = high[i]
  if (low.slice(i + 1).some((byte) => byte !== 0x80)) {
    split(low, [...low.slice(0, i + 1), ...Array<number>(rest).fill(0xbf)], out)
    from++
  }
  const cut = high.slice(i + 1).some((byte) => byte !== 0xbf)
  if (cut) to--
  if (from <= to) out.push([...prefix, from, to, ...full])
  if (cut) split([...high.slice(0, i + 1), ...Array<number>(rest).fill(0x80)], high, out)
}
