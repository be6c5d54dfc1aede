// Rules of an operator, from a YAML or JSON file, and how rules become a detector.
import { readFile, stat } from 'node:fs/promises'
import { parse } from 'yaml'
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check, describeProblems } from '../formats/check.ts'
import { type Accept, compilePattern, type Pattern, quoteWords } from './pattern.ts'
import type { Action, Detector } from './types.ts'

const MAX_BYTES = 1 << 20

const rule = z
  .strictObject({
    id: z.string().regex(/^[\w.:/-]{1,64}$/, 'expected letters, digits and ._:/- only, at most 64'),
    category: z.string().regex(/^[\w./ -]{1,64}$/, 'expected letters, digits and ._/- only, at most 64'),
    pattern: z.string().min(1).optional().describe('regular expression, without lookaround and backreferences'),
    words: z.array(z.string().trim().min(1).max(200)).min(1).max(10_000).optional().describe('whole words or phrases'),
    case_sensitive: z.boolean().default(false),
    action: z.enum(['block', 'redact', 'flag']),
    score: z.number().positive().max(1).default(1).describe('what /v1/moderations says of the category'),
    replacement: z.string().max(200).optional().describe('for redact (default: the category in brackets)'),
  })
  .refine(({ pattern, words }) => (pattern === undefined) !== (words === undefined), 'give either pattern or words')

const rulesFile = z.strictObject({ rules: z.array(rule).max(1000) })

export type Rule = Omit<z.output<typeof rule>, 'action'> & { action: Action }

/** Reads rules. Throws UserError that names every wrong entry. */
export async function readRules(path: string): Promise<Rule[]> {
  let text: string
  try {
    if ((await stat(path)).size > MAX_BYTES) throw new UserError(`${path}: larger than ${MAX_BYTES} bytes`)
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 100 })
  } catch (error) {
    throw new UserError(`${path}: not valid YAML: ${error instanceof Error ? error.message : error}`)
  }
  const result = check(rulesFile, value)
  if ('problems' in result) throw new UserError(`${path}: ${describeProblems(result.problems)}`)
  const { rules } = result.data
  const twice = rules.find(({ id }, index) => rules.findIndex((other) => other.id === id) !== index)
  if (twice) throw new UserError(`${path}: the rule ${twice.id} is defined twice`)
  return rules
}

const LETTER = /[\p{L}\p{N}_]/u

/** Refuses a match that is a part of a longer word. */
const wholeWord: Accept = (text, start, end) => {
  const before = [...text.slice(Math.max(0, start - 2), start)].at(-1)
  const after = [...text.slice(end, end + 2)][0]
  return [before, after].some((char) => char !== undefined && LETTER.test(char)) ? undefined : end
}

/** Throws UserError where a rule's pattern cannot be used. */
export function createRules(rules: readonly Rule[]): Detector {
  const compiled = rules.map((entry): { rule: Rule; pattern: Pattern; accept?: Accept } => {
    const { id, pattern, words, case_sensitive: caseSensitive } = entry
    try {
      if (pattern !== undefined) return { rule: entry, pattern: compilePattern(pattern, { caseSensitive }) }
      // The longest first, as the first that matches counts.
      const sorted = [...(words ?? [])].sort((a, b) => b.length - a.length)
      const parts = sorted.map(quoteWords).join('|')
      return { rule: entry, pattern: compilePattern(parts, { caseSensitive, long: true }), accept: wholeWord }
    } catch (error) {
      if (error instanceof UserError) throw new UserError(`rule ${id}: ${error.message}`)
      throw error
    }
  })
  return {
    find: (text, from) =>
      compiled.flatMap(({ rule: { id, category, action, score, replacement }, pattern, accept }) =>
        pattern.matches(text, from, accept).map(({ start, end }) => ({
          rule: id,
          category,
          action,
          score,
          start,
          end,
          ...(action === 'redact' ? { replacement: replacement ?? `[${category.toUpperCase()}]` } : {}),
        })),
      ),
    open: (text, from) => Math.min(text.length, ...compiled.map(({ pattern }) => pattern.open(text, from))),
  }
}
