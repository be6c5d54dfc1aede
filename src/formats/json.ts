// JSON beside what JSON.parse does: what a value is, nesting depth, duplicate keys, values for messages. Knows nothing about what the
// JSON means.

const QUOTE = 0x22
const BACKSLASH = 0x5c

/**
 * Throws when objects and lists nest deeper than `maxDepth` or an object has a key twice. Runs before JSON.parse, so
 * that a hostile text cannot make the parser build millions of nested lists; it leaves all other syntax to it.
 */
export const checkJsonStructure = (text: string, maxDepth: number): void => {
  const keys: (Set<string> | undefined)[] = []
  let string: string | undefined
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case QUOTE: {
        const start = i++
        while (i < text.length && text.charCodeAt(i) !== QUOTE) i += text.charCodeAt(i) === BACKSLASH ? 2 : 1
        string = text.slice(start, i + 1)
        break
      }
      case 0x3a: {
        // A colon outside a string: the string before it was a key. Escapes are resolved, "\u0061" is "a".
        if (string === undefined || keys.length === 0) throw new Error(`unexpected : at character ${i}`)
        const key = String(JSON.parse(string))
        keys[keys.length - 1] ??= new Set()
        const seen = keys[keys.length - 1]!
        if (seen.has(key)) throw new Error(`duplicate name ${JSON.stringify(key)}`)
        seen.add(key)
        string = undefined
        break
      }
      case 0x7b: // {
      case 0x5b: // [
        if (keys.length === maxDepth) throw new Error(`nested deeper than ${maxDepth} levels at character ${i}`)
        keys.push(undefined)
        break
      case 0x7d: // }
      case 0x5d: // ]
        keys.pop()
        break
    }
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const MOST_SHOWN = 80

/** A value for a message: JSON, cut where it is long; `none` where there is none. */
export function shownJson(value: unknown): string {
  if (value === undefined) return 'none'
  const text = JSON.stringify(value)
  return text.length <= MOST_SHOWN ? text : `${text.slice(0, MOST_SHOWN)}...`
}
