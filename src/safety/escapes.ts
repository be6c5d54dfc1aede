// Escapes of JSON in a text: a client decodes them in what a tool is called with or what matches a schema, so what they stand
// for is judged too. Each run of backslashes counts, however often the text is JSON within JSON.

/** A text as it reads with its escapes decoded. */
export interface Decoded {
  text: string
  /** Index in the original of each character, and of the end. */
  at: number[]
  /** Where the escapes lie in the original. */
  escapes: { start: number; end: number }[]
}

const ESCAPE = /(?<!\\)\\+(?:u([0-9a-f]{4})|([nrt"/]))/gi
const PLAIN: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' }

/** Undefined where there are no escapes. */
export function decodeEscapes(text: string): Decoded | undefined {
  const escapes: Decoded['escapes'] = []
  const at: number[] = []
  let decoded = ''
  let next = 0
  const copy = (end: number) => {
    for (let i = next; i < end; i++) at.push(i)
    decoded += text.slice(next, end)
  }
  for (const { 0: whole, 1: code, 2: letter = '', index } of text.matchAll(ESCAPE)) {
    copy(index)
    at.push(index)
    decoded +=
      code === undefined ? (PLAIN[letter.toLowerCase()] ?? letter) : String.fromCharCode(Number.parseInt(code, 16))
    next = index + whole.length
    escapes.push({ start: index, end: next })
  }
  if (escapes.length === 0) return undefined
  copy(text.length)
  at.push(text.length)
  return { text: decoded, at, escapes }
}

/** Where an escape may be under way at the end of a text; its length where none is. */
export function openEscape(text: string): number {
  const open = /(?<!\\)\\+(?:u[0-9a-f]{0,3})?$/i.exec(text)
  return open ? open.index : text.length
}
