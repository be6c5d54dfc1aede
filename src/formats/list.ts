// Lists and tables in schemas whose check ends at the first entry that is wrong: much nonsense costs no more than a little.
import * as z from 'zod'

/** A list of `min` (default 0) to `max` entries. One problem is reported, that of the first wrong entry. */
export function list<S extends z.ZodType>(item: S, { min = 0, max }: { min?: number; max: number }) {
  return z
    .array(z.unknown())
    .min(min)
    .max(max)
    .transform((values, context): z.output<S>[] => {
      const checked: z.output<S>[] = []
      for (const [index, value] of values.entries()) {
        const result = firstOf(item, value, [index], context)
        if (!result) return z.NEVER
        checked.push(result.data)
      }
      return checked
    })
    .meta({ [ENTRIES]: item })
}

/** Keys with values, at most `max`. One problem is reported, that of the first wrong entry. */
export function table<K extends z.ZodType<string, string>, V extends z.ZodType>(key: K, value: V, max: number) {
  return z
    .record(z.string(), z.unknown())
    .refine((given) => Object.keys(given).length <= max, `at most ${max} keys`)
    .transform((given, context): Record<string, z.output<V>> => {
      const checked: [string, z.output<V>][] = []
      for (const [name, one] of Object.entries(given)) {
        const result = firstOf(key, name, [name], context) && firstOf(value, one, [name], context)
        if (!result) return z.NEVER
        checked.push([name, result.data])
      }
      return Object.fromEntries(checked)
    })
    .meta({ [ENTRIES]: value, propertyNames: z.toJSONSchema(key) })
}

/** What a schema makes of a value; undefined where it is wrong, which is reported at `path`. */
function firstOf<S extends z.ZodType>(
  schema: S,
  value: unknown,
  path: PropertyKey[],
  { issues }: { issues: z.core.$ZodRawIssue[] },
): { data: z.output<S> } | undefined {
  // As everywhere, words are made of what the issue says.
  const { data, error } = schema.safeParse(value, { error: () => '' })
  if (!error) return { data: data as z.output<S> }
  for (const issue of error.issues)
    issues.push({ ...issue, input: value, path: [...path, ...issue.path] } as z.core.$ZodRawIssue)
  return undefined
}

const ENTRIES = 'entriesOf'

/** The schema of the entries of a `list` or `table`; undefined for other schemas. */
export const entriesOf = (schema: z.core.$ZodType): z.ZodType | undefined =>
  z.globalRegistry.get(schema)?.[ENTRIES] as z.ZodType | undefined
