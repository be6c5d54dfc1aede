// Scores of JSON texts against references: exact matches, and precision and recall of fields, with standard errors over
// the texts. Pure functions; knows nothing about how the texts were made.
import { type Estimate, ratioOfSums } from './estimate.ts'
import type { TextPair } from './text-score.ts'

export interface JsonScore {
  /** Share of the texts that are their references as JSON: spaces and the order of keys do not count. */
  exact: Estimate
  /** Share of the fields of all texts that are right. */
  precision: Estimate
  /** Share of the fields of all references that are found. */
  recall: Estimate
  /** Harmonic mean of both. */
  f1: Estimate
}

/**
 * Scores texts against references that are JSON. A field is a path and its value; one that is null says nothing and is
 * not counted. Fields are summed over all texts (micro average). A text that is not JSON has no fields. Throws
 * SyntaxError where a reference is not JSON.
 */
export function scoreJson(pairs: readonly TextPair[]): JsonScore {
  const rows = pairs.map(({ text, reference }) => {
    const [given, wanted] = [leavesOf(text), leaves(JSON.parse(reference))]
    const right = said(wanted).filter(([path, value]) => given?.get(path) === value).length
    const exact = given?.size === wanted.size && [...wanted].every(([path, value]) => given.get(path) === value)
    return { exact: Number(exact), right, given: said(given ?? new Map()).length, wanted: said(wanted).length }
  })
  const share = (part: (row: (typeof rows)[number]) => number, whole: (row: (typeof rows)[number]) => number) =>
    ratioOfSums(rows.map(part), rows.map(whole))
  return {
    exact: share(
      (row) => row.exact,
      () => 1,
    ),
    precision: share(
      (row) => row.right,
      (row) => row.given,
    ),
    recall: share(
      (row) => row.right,
      (row) => row.wanted,
    ),
    f1: share(
      (row) => 2 * row.right,
      (row) => row.given + row.wanted,
    ),
  }
}

/** Whether a text is a JSON object, so that its fields can be scored. */
export function isJsonObject(text: string): boolean {
  const value = parsed(text)?.value
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

type Leaves = Map<string, string>

const said = (fields: Leaves): [string, string][] => [...fields].filter(([, value]) => value !== 'null')

function leavesOf(text: string): Leaves | undefined {
  const json = parsed(text)
  return json && leaves(json.value)
}

function parsed(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return undefined
  }
}

/** Path and value of everything that holds no other value, as JSON; empty lists and objects are values too. */
function leaves(value: unknown, path: readonly (string | number)[] = [], found: Leaves = new Map()): Leaves {
  const inner: [string | number, unknown][] = Array.isArray(value)
    ? [...value.entries()]
    : typeof value === 'object' && value !== null
      ? Object.entries(value)
      : []
  if (inner.length === 0) found.set(JSON.stringify(path), JSON.stringify(value))
  for (const [key, part] of inner) leaves(part, [...path, key], found)
  return found
}
