// From the source of a template to tokens, with the white space control that transformers sets: trim_blocks and
// lstrip_blocks, no trailing newline. Follows jinja2's lexer. Knows nothing about what tags mean.
import { SPACE, TemplateError } from './text.ts'

export type Token =
  | { kind: 'data' | 'name' | 'string' | 'operator'; text: string; line: number }
  | { kind: 'integer' | 'float'; text: string; line: number }
  | { kind: 'begin block' | 'end block' | 'begin print' | 'end print' | 'end of template'; text: string; line: number }

const TRAILING_SPACE = new RegExp(`[${SPACE}]+$`)
const ONLY_SPACE = new RegExp(`^[${SPACE}]+$`)

const TAG_START = new RegExp(`\\{%([-+]?)[${SPACE}]*raw[${SPACE}]*(?:-%\\}[${SPACE}]*|%\\})|\\{([%{#])([-+]?)`, 'g')
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}[${SPACE}]*|#\\}\\n?`, 'g')
const RAW_END = new RegExp(`\\{%([-+]?)[${SPACE}]*endraw[${SPACE}]*(?:\\+%\\}|-%\\}[${SPACE}]*|%\\}\\n?)`, 'g')
const BLOCK_END = new RegExp(`\\+%\\}|-%\\}[${SPACE}]*|%\\}\\n?`, 'y')
const PRINT_END = new RegExp(`-\\}\\}[${SPACE}]*|\\}\\}`, 'y')

/** What stands in a tag, in the order in which it is tried. */
const PARTS: readonly (readonly [kind: 'space' | Token['kind'], pattern: RegExp])[] = [
  ['space', new RegExp(`[${SPACE}]+`, 'y')],
  ['float', /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy],
  ['integer', /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy],
  ['name', /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy],
  ['string', /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy],
  ['operator', /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y],
]
const CLOSING: Readonly<Record<string, string>> = { '{': '}', '(': ')', '[': ']' }

const matchAt = (pattern: RegExp, source: string, at: number): RegExpExecArray | null => {
  pattern.lastIndex = at
  return pattern.exec(source)
}

/** Throws TemplateError, with the line, where the source is no template. */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n|\r/g, '\n').replace(/\n$/, '')
  const tokens: Token[] = []
  let at = 0
  let line = 1
  /** Whether the last tag ended a line, so that white space before the next one stands alone in its line. */
  let lineStarts = true

  const fail = (problem: string): never => {
    throw new TemplateError(`line ${line}: ${problem}`)
  }
  const advance = (end: number): void => {
    for (let next = source.indexOf('\n', at); next !== -1 && next < end; next = source.indexOf('\n', next + 1)) line++
    if (end > at) lineStarts = source[end - 1] === '\n'
    at = end
  }
  /** Text before a tag, without the white space that the tag's sign or lstrip_blocks takes away. */
  const pushData = (text: string, sign: string, strips: boolean): void => {
    let kept = text
    if (sign === '-') kept = text.replace(TRAILING_SPACE, '')
    else if (sign !== '+' && strips) {
      const start = text.lastIndexOf('\n') + 1
      if ((start > 0 || lineStarts) && ONLY_SPACE.test(text.slice(start))) kept = text.slice(0, start)
    }
    if (kept !== '') tokens.push({ kind: 'data', text: kept, line })
  }

  while (at < source.length) {
    const tag = matchAt(TAG_START, source, at)
    if (tag === null) {
      tokens.push({ kind: 'data', text: source.slice(at), line })
      break
    }
    const [whole, rawSign, opening, sign] = tag
    pushData(source.slice(at, tag.index), rawSign ?? sign!, opening !== '{')
    advance(tag.index + whole.length)
    if (opening === '#') {
      const end = matchAt(COMMENT_END, source, at) ?? fail('a comment is not closed with #}')
      advance(end.index + end[0].length)
    } else if (opening === undefined) {
      const end = matchAt(RAW_END, source, at) ?? fail('a raw block is not closed with endraw')
      pushData(source.slice(at, end.index), end[1]!, true)
      advance(end.index + end[0].length)
    } else readTag(opening === '%')
  }
  tokens.push({ kind: 'end of template', text: 'end of template', line })
  return tokens

  function readTag(isBlock: boolean): void {
    const open: string[] = []
    const end = isBlock ? BLOCK_END : PRINT_END
    tokens.push({ kind: isBlock ? 'begin block' : 'begin print', text: isBlock ? '{%' : '{{', line })
    for (;;) {
      const closing = open.length === 0 ? matchAt(end, source, at) : null
      if (closing !== null) {
        tokens.push({ kind: isBlock ? 'end block' : 'end print', text: isBlock ? '%}' : '}}', line })
        advance(at + closing[0].length)
        return
      }
      if (at >= source.length) fail(`a tag is not closed with ${isBlock ? '%}' : '}}'}`)
      readPart(open)
    }
  }

  function readPart(open: string[]): void {
    for (const [kind, pattern] of PARTS) {
      const match = matchAt(pattern, source, at)
      if (match === null) continue
      const [text] = match
      if (kind === 'operator') {
        if (text in CLOSING) open.push(CLOSING[text]!)
        else if (')]}'.includes(text) && open.pop() !== text) fail(`unexpected ${text}`)
      }
      if (kind !== 'space') tokens.push({ kind, text: kind === 'string' ? unquote(text.slice(1, -1)) : text, line })
      advance(at + text.length)
      return
    }
    fail(`unexpected character ${JSON.stringify(source[at])}`)
  }

  /** Escapes as Python's "unicode-escape" reads them; unknown ones stay as they are. */
  function unquote(text: string): string {
    return text.replace(
      /\\(\n|x[\da-f]{2}|u[\da-f]{4}|U[\da-f]{8}|[0-7]{1,3}|[\s\S])/gi,
      (whole: string, sequence: string) => {
        const first = sequence[0]!
        if (sequence === '\n') return ''
        if (first >= '0' && first <= '7') return String.fromCodePoint(Number.parseInt(sequence, 8))
        if ('xuU'.includes(first)) {
          const code = sequence.length > 1 ? Number.parseInt(sequence.slice(1), 16) : Number.NaN
          return code <= 0x10ffff ? String.fromCodePoint(code) : fail(`the sequence ${whole} is not whole`)
        }
        if (first === 'N') fail('escapes with names of characters are not supported')
        return SINGLE_ESCAPES[first] ?? whole
      },
    )
  }
}

const SINGLE_ESCAPES: Readonly<Record<string, string>> = {
  ...{ n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', v: '\v', a: '\x07' },
  ...{ '\\': '\\', "'": "'", '"': '"' },
}
