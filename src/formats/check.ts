// Checks values by schemas, and says what is wrong in plain words: what was expected, and what stood there.
import type * as z from 'zod'
import { shownJson } from './json.ts'

export interface Problem {
  path: readonly PropertyKey[]
  message: string
  /** The schema has no such key. */
  unknownKey: boolean
}

/** What the schema makes of a value, or all that is wrong with it. */
export function check<S extends z.ZodType>(schema: S, value: unknown): { data: z.output<S> } | { problems: Problem[] } {
  // No words of zod's: a message is empty unless a schema has its own.
  const { data, error } = schema.safeParse(value, { error: () => '' })
  if (!error) return { data: data as z.output<S> }
  return { problems: error.issues.flatMap((issue) => problemsOf(issue, value)) }
}

/** The problems in one line. */
export const describeProblems = (problems: readonly Problem[]): string =>
  problems.map(({ path, message }) => `${path.join('.') || 'top level'}: ${message}`).join('; ')

/** `before`: the path of the union that the issue is a branch of. */
function problemsOf(issue: z.core.$ZodIssue, value: unknown, before: readonly PropertyKey[] = []): Problem[] {
  const path = [...before, ...issue.path]
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: [...path, key], message: 'unknown key', unknownKey: true }))
  if (issue.code === 'invalid_union') {
    const inner = issue.errors.flatMap((branch) => branch.flatMap((each) => problemsOf(each, value, path)))
    const furthest = inner.reduce<Problem | undefined>(
      (best, each) => (each.path.length > (best ?? { path }).path.length ? each : best),
      undefined,
    )
    if (furthest) return [furthest]
  }
  return [{ path, message: describe(issue, valueAt(value, path)), unknownKey: false }]
}

function describe(issue: z.core.$ZodIssue, found: unknown): string {
  const words = issue.message === '' ? expectation(issue) : issue.message
  if (!words.startsWith('expected ')) return words
  return found === undefined ? 'is required' : `${words}, not ${given(issue, found)}`
}

/** What stood there, or how much of it where that is what is wrong. */
const given = ({ code }: z.core.$ZodIssue, found: unknown): string =>
  (code === 'too_small' || code === 'too_big') && (typeof found === 'string' || Array.isArray(found))
    ? String(found.length)
    : shownJson(found)

const types: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'keys with values',
  record: 'keys with values',
}
const things: Readonly<Record<string, string>> = { string: 'characters', array: 'entries' }

/** What to say where the schema has no words of its own. */
function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `expected ${types[issue.expected] ?? issue.expected}`
    case 'invalid_value':
      return `expected ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(String).join(', ')}`
    case 'too_small': {
      const { origin, minimum, inclusive } = issue
      const thing = things[origin]
      if (thing) return minimum === 1 ? 'must not be empty' : `expected at least ${minimum} ${thing}`
      return `expected a number ${inclusive ? 'of at least' : 'above'} ${minimum}`
    }
    case 'too_big': {
      const { origin, maximum, inclusive } = issue
      const thing = things[origin]
      return thing
        ? `expected at most ${maximum} ${thing}`
        : `expected a number ${inclusive ? 'of at most' : 'below'} ${maximum}`
    }
    case 'invalid_format':
      return issue.format === 'url' ? 'expected a URL' : `expected text that matches ${issue.pattern ?? issue.format}`
    case 'invalid_key':
      return issue.issues.find(({ message }) => message !== '')?.message ?? 'cannot be a key here'
    case 'invalid_union': {
      const branches = issue.errors.flat()
      // A form of the value's own type says more than one of another.
      const near = branches.find(({ code }) => code !== 'invalid_type')
      if (near) return near.message === '' ? expectation(near) : near.message
      const forms = new Set(branches.map((branch) => expectation(branch).replace('expected ', '')))
      return forms.size > 0 ? `expected ${[...forms].join(' or ')}` : 'has no form that is known'
    }
    default:
      return 'is not valid'
  }
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let current = value
  for (const key of path) {
    if (typeof current !== 'object' || current === null) return undefined
    current = (current as Record<PropertyKey, unknown>)[key]
  }
  return current
}
