// Damage to bytes and to JSON, drawn from a seed. Knows no formats.
import type { Random } from '../../src/core/random.ts'

/** One to four changes: bytes overwritten or set to 0xff, removed, doubled, added, or the end cut off; most in the first part. */
export function damageBytes(whole: Uint8Array, draw: Random): Buffer {
  let bytes = Buffer.from(whole)
  for (let left = 1 + draw.integer(4); left > 0; left--) {
    const reach = draw.integer(2) === 0 ? bytes.length : Math.ceil(bytes.length / 8)
    const at = draw.integer(Math.max(1, reach))
    const length = 1 + draw.integer(32)
    switch (draw.integer(7)) {
      case 0:
        bytes[at] = draw.integer(256)
        break
      case 1:
        bytes.fill(0xff, at, Math.min(bytes.length, at + 8))
        break
      case 2:
        if (at + 8 <= bytes.length) bytes.writeBigUInt64LE(2n ** BigInt(draw.integer(64)), at)
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
        break
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)])
        break
      case 5: {
        const noise = Buffer.from(Array.from({ length }, () => draw.integer(256)))
        bytes = Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)])
        break
      }
      default:
        bytes = bytes.subarray(0, at)
    }
    if (bytes.length === 0) break
  }
  return bytes
}

const ODD = [
  ...[
    null,
    true,
    '',
    'x',
    '\u0000',
    '__proto__',
    [],
    {},
    [[]],
    -1,
    0,
    0.5,
    3,
    65_537,
    1e9,
    2 ** 31,
    2 ** 53,
    1e308,
    -1e308,
  ],
  ...['a'.repeat(1000), '(a+)+$', Array.from({ length: 500 }, () => 1), { type: 'Sequence' }, { a: { a: { a: {} } } }],
]

/** A value with one to four of its parts exchanged for others, removed, renamed or doubled. */
export function damageJson(whole: unknown, draw: Random): unknown {
  const value: unknown = structuredClone(whole)
  for (let left = 1 + draw.integer(4); left > 0; left--) {
    let node = value as Record<string, unknown>
    for (;;) {
      const keys = Object.keys(node)
      if (keys.length === 0) break
      const key = keys[draw.integer(keys.length)]!
      const next = node[key]
      if (typeof next === 'object' && next !== null && draw.integer(4) > 0) {
        node = next as Record<string, unknown>
        continue
      }
      switch (draw.integer(4)) {
        case 0:
          delete node[key]
          break
        case 1:
          node[keys[draw.integer(keys.length)]!] = next
          break
        default:
          node[key] = structuredClone(ODD[draw.integer(ODD.length)])
      }
      break
    }
  }
  return value
}
