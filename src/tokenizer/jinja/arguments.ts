// Reads the arguments of functions, filters and methods that are written here. Knows nothing about what they do.
import { TemplateError } from './text.ts'
import { type Given, isTrue, Tuple, typeName, Undefined, type Value } from './values.ts'

export interface ArgumentReader {
  /** The argument of that name or place; undefined where it was not given. */
  value(name: string): Value | undefined
  text(name: string): string | undefined
  requiredText(name: string): string
  /** An integer, as a number. */
  integer(name: string): number | undefined
  flag(name: string): boolean
}

/** `names` in the order of their places. Throws TemplateError for arguments beyond them. */
export function readArguments(of: string, given: Given, names: readonly string[]): ArgumentReader {
  const { positional, named } = given
  const fail = (problem: string): never => {
    throw new TemplateError(`${of}: ${problem}`)
  }
  if (positional.length > names.length) fail(`takes at most ${names.length} arguments, ${positional.length} were given`)
  for (const name of named.keys()) if (!names.includes(name)) fail(`has no argument ${name}`)
  const self: ArgumentReader = {
    value(name) {
      const at = names.indexOf(name)
      return at < positional.length ? positional[at] : named.get(name)
    },
    text(name) {
      const found = self.value(name)
      if (found === undefined || found === null) return undefined
      if (found instanceof Undefined) return found.fail()
      return typeof found === 'string' ? found : fail(`${name} must be a text, not ${typeName(found)}`)
    },
    requiredText: (name) => self.text(name) ?? fail(`needs ${name}`),
    integer(name) {
      const found = self.value(name)
      if (found === undefined || found === null) return undefined
      if (found instanceof Undefined) return found.fail()
      if (typeof found === 'boolean') return Number(found)
      return typeof found === 'bigint' ? Number(found) : fail(`${name} must be an integer, not ${typeName(found)}`)
    },
    flag: (name) => isTrue(self.value(name) ?? false),
  }
  return self
}

/** A text or a tuple of texts, as `startswith` takes them. */
export const texts = (value: Value | undefined): string[] | undefined => {
  const items = value instanceof Tuple ? value.items : [value]
  return items.every((item) => typeof item === 'string') ? (items as string[]) : undefined
}
