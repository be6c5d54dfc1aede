// Regular expressions of task files, matched in linear time: answers of models are long and hostile.
import { RE2JS, RE2JSSyntaxException } from 're2js'
import { UserError } from '../core/types.ts'

/** Where a pattern matches in a text. */
export interface Pattern {
  test(text: string): boolean
  toString(): string
  /** How often, without overlaps. */
  count(text: string): number
}

/** Throws UserError for a pattern that RE2 has not (lookaround, backreferences) or that is wrong. */
export function compilePattern(source: string, { ignoreCase = false } = {}): Pattern {
  let compiled: RE2JS
  try {
    compiled = RE2JS.compile(source, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0)
  } catch (error) {
    if (!(error instanceof RE2JSSyntaxException)) throw error
    throw new UserError(`${JSON.stringify(source)} is no regular expression of RE2: ${error.message}`)
  }
  return {
    // By this name ajv tells patterns apart.
    toString: () => source,
    test: (text) => compiled.matcher(text).find(),
    count(text) {
      const matcher = compiled.matcher(text)
      let found = 0
      while (matcher.find()) found++
      return found
    },
  }
}
