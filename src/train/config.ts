// Identity of a run's settings, so that a run is only continued with the ones it was started with.
import { createHash } from 'node:crypto'

/** SHA-256 of the settings as JSON with sorted keys: the order of keys and keys that are undefined do not matter. */
export function configHash(config: Readonly<Record<string, unknown>>): string {
  return createHash('sha256').update(canonicalJson(config)).digest('hex')
}

/** Top-level keys whose values differ, sorted. */
export function differingKeys(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): string[] {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
  return keys.filter((key) => canonicalJson(a[key]) !== canonicalJson(b[key]))
}

function canonicalJson(value: unknown): string {
  const sorted = JSON.stringify(value, (_, entry: unknown) =>
    typeof entry === 'object' && entry !== null && !Array.isArray(entry)
      ? Object.fromEntries(Object.entries(entry).sort(([a], [b]) => (a < b ? -1 : 1)))
      : entry,
  )
  return sorted ?? 'undefined'
}
