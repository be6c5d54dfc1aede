// Jinja templates rendered as jinja2 does with the settings of transformers. Uses no Node API.

import { readArguments } from './arguments.ts'
import { parse } from './parser.ts'
import { render } from './render.ts'
import { strftime } from './strftime.ts'
import { TemplateError } from './text.ts'
import { Callable, Dict, type Given, iterate, Namespace, Range, textOf, toJson, toValue, type Value } from './values.ts'

export { TemplateError } from './text.ts'

/**
 * A template ready to be rendered with variables of plain data (what JSON holds); those that are undefined are left out.
 * Throws TemplateError where it is no template; rendering throws one where jinja2 would raise. `now` is for
 * `strftime_now`.
 */
export function compile(template: string): (variables: Readonly<Record<string, unknown>>, now?: Date) => string {
  const statements = parse(template)
  return (variables, now = new Date()) => {
    const globals = new Map<string, Value>(functions(now))
    for (const [name, value] of Object.entries(variables)) if (value !== undefined) globals.set(name, toValue(value))
    try {
      return render(statements, globals)
    } catch (error) {
      // A template that calls itself without end, or builds a text that no engine can hold.
      if (error instanceof RangeError) throw new TemplateError(error.message)
      throw error
    }
  }
}

/** Plain data as Python's `json.dumps(data, ensure_ascii=False)` writes it. */
export const toPythonJson = (data: unknown): string =>
  toJson(toValue(data), { ensureAscii: false, indent: undefined, separators: [', ', ': '], sortKeys: false })

function functions(now: Date): [string, Value][] {
  const define = (name: string, call: (given: Given) => Value): [string, Value] => [name, new Callable(name, call)]
  return [
    define('range', range),
    define('dict', dict),
    define('namespace', (given) => {
      const namespace = new Namespace()
      for (const [key, value] of dict(given).entries()) namespace.attributes.set(textOf(key), value)
      return namespace
    }),
    define('raise_exception', ({ positional }) => {
      throw new TemplateError(textOf(positional[0] ?? ''))
    }),
    define('strftime_now', (given) =>
      strftime(readArguments('strftime_now', given, ['format']).requiredText('format'), now),
    ),
    define('cycler', cycler),
    define('joiner', joiner),
  ]
}

function range({ positional }: Given): Range {
  const [first, second, third = 1n] = positional.map((value) => (typeof value === 'boolean' ? BigInt(value) : value))
  const bounds = second === undefined ? [0n, first, third] : [first, second, third]
  if (!bounds.every((bound) => typeof bound === 'bigint')) throw new TemplateError('range needs integers')
  const [start, stop, step] = bounds as [bigint, bigint, bigint]
  if (step === 0n) throw new TemplateError('range() arg 3 must not be zero')
  return new Range(start, stop, step)
}

function dict({ positional, named }: Given): Dict {
  const [source = []] = positional
  const entries =
    source instanceof Dict
      ? source.entries()
      : iterate(source).map((pair) => {
          const [key, value, ...rest] = iterate(pair)
          if (key === undefined || value === undefined || rest.length > 0)
            throw new TemplateError('a dict is made of pairs')
          return [key, value] as const
        })
  return new Dict([...entries, ...named])
}

function cycler({ positional }: Given): Value {
  if (positional.length === 0) throw new TemplateError('at least one item has to be provided')
  const attributes = new Map<string, Value>([['current', positional[0]!]])
  let at = 0
  const move = (to: number): Value => {
    at = to % positional.length
    attributes.set('current', positional[at]!)
    return null
  }
  attributes.set('reset', new Callable('reset', () => move(0)))
  attributes.set(
    'next',
    new Callable('next', () => {
      const current = positional[at]!
      move(at + 1)
      return current
    }),
  )
  return new Callable(
    'cycler',
    () => null,
    (name) => attributes.get(name),
  )
}

function joiner({ positional }: Given): Value {
  let used = false
  return new Callable('joiner', () => {
    const text = used ? (positional[0] ?? ', ') : ''
    used = true
    return text
  })
}
