// Where two JSON values differ. Knows nothing about what they mean.
import { isRecord } from './json.ts'

export interface Difference {
  /** Keys from the outside in, joined by dots. */
  path: string
  /** The value on either side; undefined where there is none. */
  a: unknown
  b: unknown
}

type JsonObject = Readonly<Record<string, unknown>>

/** The keys whose values differ, sorted. Objects are looked into, lists are compared as a whole. */
export function jsonDifferences(a: JsonObject, b: JsonObject): Difference[] {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
  return keys.flatMap((key) => {
    const [left, right] = [a[key], b[key]]
    if (isRecord(left) && isRecord(right))
      return jsonDifferences(left, right).map(({ path, ...values }) => ({ path: `${key}.${path}`, ...values }))
    return canonicalJson(left) === canonicalJson(right) ? [] : [{ path: key, a: left, b: right }]
  })
}

/** JSON with sorted keys; keys that are undefined are left out. */
export function canonicalJson(value: unknown): string {
  const sorted = JSON.stringify(value, (_, entry: unknown) =>
    isRecord(entry) ? Object.fromEntries(Object.entries(entry).sort(([a], [b]) => (a < b ? -1 : 1))) : entry,
  )
  return sorted ?? 'undefined'
}
