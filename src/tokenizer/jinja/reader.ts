// Reads the tokens of a template one after the other.
import { type Token, tokenize } from './lexer.ts'
import { TemplateError } from './text.ts'

/** Nesting beyond this is hostile: the parser and the renderer call themselves for each level. */
const MAX_DEPTH = 200

export interface Reader {
  peek(): Token
  /** Whether the next token is of a kind, and has a text. */
  is(kind: Token['kind'], text?: string): boolean
  isName(text: string): boolean
  isOperator(text: string): boolean
  /** Whether the token after the next one is of a kind, and has a text. */
  isSecond(kind: Token['kind'], text: string): boolean
  take(): Token
  /** Takes the next token if it is of a kind, and has a text. */
  skip(kind: Token['kind'], text?: string): boolean
  /** Takes the next token, which must be of a kind and have a text. */
  expect(kind: Token['kind'], text?: string): string
  /** What stands next, for messages. */
  found(): string
  /** Throws TemplateError with the line. */
  fail(problem: string): never
  /** Parses what is one level deeper. */
  deeper<T>(parsePart: () => T): T
}

/** Throws TemplateError where the text has no tokens of a template. */
export function createReader(template: string): Reader {
  const tokens = tokenize(template)
  let next = 0
  let depth = 0
  const peek = (): Token => tokens[next]!
  const fail = (problem: string): never => {
    throw new TemplateError(`line ${peek().line}: ${problem}`)
  }
  const found = () => (peek().kind === 'end of template' ? 'the end of the template' : JSON.stringify(peek().text))
  const isAt = (at: number, kind: Token['kind'], text?: string): boolean =>
    tokens[at]?.kind === kind && (text === undefined || tokens[at].text === text)
  const is = (kind: Token['kind'], text?: string): boolean => isAt(next, kind, text)
  return {
    ...{ peek, fail, found, is },
    isName: (text) => is('name', text),
    isOperator: (text) => is('operator', text),
    isSecond: (kind, text) => isAt(next + 1, kind, text),
    take: () => tokens[next++]!,
    skip(kind, text) {
      if (!is(kind, text)) return false
      next++
      return true
    },
    expect(kind, text) {
      if (!is(kind, text)) fail(`expected ${text ?? kind}, found ${found()}`)
      return tokens[next++]!.text
    },
    deeper(parsePart) {
      if (++depth > MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`)
      const part = parsePart()
      depth--
      return part
    },
  }
}
