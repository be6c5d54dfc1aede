// Schemas without references and combinations as expressions of their JSON texts.

import { UserError } from '../../../core/types.ts'
import {
  both,
  choice,
  type Expression,
  empty,
  except,
  nothing,
  optional,
  repeat,
  rule,
  sequence,
  text,
} from '../expression.ts'
import { formats, plainFormats } from '../formats.ts'
import {
  type Bounds,
  canonicalContent,
  colon,
  comma,
  integer,
  jsonCharacter,
  list,
  number,
  quoted,
  stringContent,
} from '../json.ts'
import { parseRegex } from '../regex.ts'
import {
  count,
  excerpt,
  fail,
  finite,
  isObject,
  isOfType,
  type Json,
  KEYWORDS,
  pointer,
  properties,
  type Schema,
  schemas,
  strings,
  type TypeName,
  typesOf,
  valuesOf,
} from './source.ts'

/** Largest `multipleOf`. */
const MULTIPLE = 1000

/** What values need of the schema around them. */
export interface Surroundings {
  /** The expression of a schema inside. */
  compile(schema: Json, path: string): Expression
  /** A rule for what is used in more than one place. */
  shared(expression: Expression, name: string): Expression
  /** A schema as schemas without references and combinations. */
  alternatives(schema: Json, path: string): Schema[]
}

/** The expression of a schema without references and combinations. */
export function createValues({ compile, shared, alternatives }: Surroundings): (schema: Schema) => Expression {
  /** A schema without references and combinations. */
  function simple(schema: Schema): Expression {
    const { path, keywords } = schema
    const types = typesOf(schema)
    const values = valuesOf(schema)
    if (values) {
      const restricting = Object.keys(keywords).find((key) => key !== 'type' && key !== 'enum' && key !== 'const')
      if (restricting) fail(`${path}/${restricting}`, 'is not supported beside enum or const')
      return choice(
        ...values.filter((value) => !types || isOfType(value, types)).map((value) => text(JSON.stringify(value))),
      )
    }
    if (types) return choice(...types.map((type) => typed(type, schema)))
    // Without a type, values of other types are valid too; what the keywords speak of is what is wanted.
    const named = new Set(Object.keys(keywords).flatMap((key) => KEYWORDS[key] ?? []))
    return named.size === 0 ? rule('value') : choice(...[...named].map((type) => typed(type, schema)))
  }

  function typed(type: TypeName, schema: Schema): Expression {
    switch (type) {
      case 'null':
        return text('null')
      case 'boolean':
        return choice(text('true'), text('false'))
      case 'number':
      case 'integer':
        return numeric(schema, type === 'integer')
      case 'string':
        return quoted(content(schema))
      case 'array':
        return array(schema)
      case 'object':
        return object(schema)
    }
  }

  function array({ path, keywords }: Schema): Expression {
    const min = count(keywords.minItems, `${path}/minItems`, 0)
    let max = count(keywords.maxItems, `${path}/maxItems`, Number.POSITIVE_INFINITY)
    const prefix = schemas(keywords.prefixItems, `${path}/prefixItems`).map((item, i) =>
      compile(item, `${path}/prefixItems/${i}`),
    )
    // Items behind a prefix that nobody describes are written only where there must be some.
    const further = keywords.items ?? (prefix.length === 0 || min > prefix.length)
    if (further === false) max = Math.min(max, prefix.length)
    const items = compile(further, `${path}/items`)
    if (keywords.uniqueItems === true && max > 1) fail(`${path}/uniqueItems`, 'is not supported')
    if (min > max) return nothing
    // From the last described item to the first: what may follow before it.
    const described = Math.min(prefix.length, max)
    let rest: Expression =
      described === 0
        ? list(items, min, max)
        : repeat(sequence(comma, items), Math.max(0, min - described), max - described)
    for (let i = described - 1; i >= 0; i--) {
      const more = sequence(i === 0 ? empty() : comma, prefix[i], shared(rest, `${path} (after ${i + 1} items)`))
      rest = i >= min ? optional(more) : more
    }
    return sequence(text('['), rest, text(']'))
  }

  function object({ path, keywords }: Schema): Expression {
    const declared = properties({ path, keywords })
    const required = new Set(strings(keywords.required, `${path}/required`))
    const { additionalProperties, patternProperties } = keywords
    if (patternProperties !== undefined && declared.size + required.size > 0)
      fail(`${path}/patternProperties`, 'is not supported beside properties or required')
    for (const name of required)
      if (!declared.has(name)) declared.set(name, additionalProperties === undefined ? true : additionalProperties)
    const min = count(keywords.minProperties, `${path}/minProperties`, 0)
    const max = count(keywords.maxProperties, `${path}/maxProperties`, Number.POSITIVE_INFINITY)
    if (min > max || required.size > max) return nothing

    const names = nameContent({ path, keywords })
    const others = dynamicMember(path, keywords, declared, names)
    // Names that the text makes up may repeat, which makes fewer properties of more members.
    if (min > Math.max(required.size, declared.size === 0 ? 1 : 0))
      fail(`${path}/minProperties`, 'is supported up to the number of required properties, and up to 1 for free names')
    if (declared.size === 0)
      return sequence(text('{'), others === nothing ? empty() : list(others, min, max), text('}'))
    if (max < declared.size)
      fail(`${path}/maxProperties`, 'is supported only where all named properties are allowed together')
    if (others !== nothing && max < Number.POSITIVE_INFINITY && max > declared.size)
      fail(`${path}/maxProperties`, 'is not supported beside both named and additional properties')

    // From the last property to the first: what may follow if a member has been written before, and if none has.
    const extra = max === declared.size ? nothing : others
    const end = text('}')
    let some: Expression = sequence(
      extra === nothing ? empty() : repeat(sequence(comma, extra), 0, Number.POSITIVE_INFINITY),
      end,
    )
    let none: Expression = sequence(extra === nothing ? empty() : list(extra, 0, Number.POSITIVE_INFINITY), end)
    let index = declared.size
    for (const [name, schema] of [...declared].reverse()) {
      index--
      const member = sequence(
        quoted(names ? both(names, inString(name)) : inString(name)),
        colon,
        compile(schema, `${path}/properties/${pointer(name)}`),
      )
      const after = shared(some, `${path} (after ${index} members)`)
      const last = required.has(name)
      some = last ? sequence(comma, member, after) : choice(sequence(comma, member, after), after)
      // Before the first required property nothing may have been written yet.
      none = last
        ? sequence(member, after)
        : choice(sequence(member, after), shared(none, `${path} (none of ${index})`))
    }
    return sequence(text('{'), none)
  }

  /** A member whose name the schema does not spell out; `allowed`: what propertyNames says of it. */
  function dynamicMember(
    path: string,
    keywords: Schema['keywords'],
    declared: ReadonlyMap<string, Json>,
    allowed: Expression | undefined,
  ): Expression {
    const { additionalProperties, patternProperties } = keywords
    const open = additionalProperties ?? (declared.size === 0 && patternProperties === undefined)
    let names = allowed ?? canonicalContent(0, Number.POSITIVE_INFINITY)
    const member = (content: Expression, schema: Json, at: string) => {
      const value = compile(schema, `${path}/${at}`)
      return value === nothing ? nothing : sequence(quoted(content), colon, value)
    }
    const members: Expression[] = []
    if (patternProperties !== undefined) {
      if (!isObject(patternProperties)) fail(`${path}/patternProperties`, 'expected an object')
      const entries = Object.entries(patternProperties)
      if (entries.length > 1) fail(`${path}/patternProperties`, 'more than one pattern is not supported')
      for (const [pattern, schema] of entries) {
        const at = `patternProperties/${pointer(pattern)}`
        const matching = located(`${path}/${at}`, () =>
          parseRegex(pattern, { match: 'search', character: jsonCharacter }),
        )
        members.push(member(allowed ? both(allowed, matching) : matching, schema, at))
        names = except(names, matching)
      }
    }
    if (declared.size > 0 && open !== false) names = except(names, choice(...[...declared.keys()].map(inString)))
    if (open !== false) members.push(member(names, open, 'additionalProperties'))
    const possible = members.filter((part) => part !== nothing)
    return possible.length === 0 ? nothing : choice(...possible)
  }

  /** Names that propertyNames allows, written in one way only, so that they can be distinguished. */
  function nameContent({ path, keywords: { propertyNames } }: Schema): Expression | undefined {
    if (propertyNames === undefined) return undefined
    const options = alternatives(propertyNames, `${path}/propertyNames`).map((schema) => {
      const values = valuesOf(schema)
      if (values) return choice(...values.filter((value) => typeof value === 'string').map(inString))
      const types = typesOf(schema)
      if (types && !types.includes('string')) return nothing
      return both(canonicalContent(0, Number.POSITIVE_INFINITY), content(schema))
    })
    return choice(...options)
  }

  return simple
}

function numeric({ path, keywords }: Schema, whole: boolean): Expression {
  const bounds: Bounds = {}
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = keywords
  if (minimum !== undefined) bounds.low = finite(minimum, `${path}/minimum`)
  if (maximum !== undefined) bounds.high = finite(maximum, `${path}/maximum`)
  if (exclusiveMinimum !== undefined) {
    const low = finite(exclusiveMinimum, `${path}/exclusiveMinimum`)
    if (bounds.low === undefined || low >= bounds.low) Object.assign(bounds, { low, lowExclusive: true })
  }
  if (exclusiveMaximum !== undefined) {
    const high = finite(exclusiveMaximum, `${path}/exclusiveMaximum`)
    if (bounds.high === undefined || high <= bounds.high) Object.assign(bounds, { high, highExclusive: true })
  }
  if (multipleOf === undefined) return whole ? integer(bounds) : number(bounds)
  const divisor = finite(multipleOf, `${path}/multipleOf`)
  if (!Number.isInteger(divisor) || divisor < 1 || divisor > MULTIPLE)
    fail(`${path}/multipleOf`, `only whole numbers from 1 to ${MULTIPLE} are supported, not ${excerpt(multipleOf)}`)
  return integer(bounds, divisor)
}

/** What stands between the quotes. */
function content({ path, keywords }: Schema): Expression {
  // More than one where schemas were merged.
  const patterns = [keywords.pattern ?? []].flat()
  const known = [keywords.format ?? []].flat()
  const min = count(keywords.minLength, `${path}/minLength`, 0)
  const max = count(keywords.maxLength, `${path}/maxLength`, Number.POSITIVE_INFINITY)
  if (min > max) return nothing
  const parts: Expression[] = []
  for (const pattern of patterns) {
    if (typeof pattern !== 'string') fail(`${path}/pattern`, `expected a string, got ${excerpt(pattern)}`)
    parts.push(located(`${path}/pattern`, () => parseRegex(pattern, { match: 'search', character: jsonCharacter })))
  }
  for (const format of known) {
    if (typeof format !== 'string') fail(`${path}/format`, `expected a string, got ${excerpt(format)}`)
    if (Object.hasOwn(formats, format))
      parts.push(parseRegex(formats[format], { match: 'whole', character: jsonCharacter }))
    // Beside a pattern another format is a name for what the pattern says.
    else if (patterns.length === 0 && !plainFormats.has(format))
      fail(`${path}/format`, `${excerpt(format)} is not supported; known are ${Object.keys(formats).join(', ')}`)
  }
  if (parts.length === 0) return stringContent(min, max)
  if (min > 0 || max < Number.POSITIVE_INFINITY) parts.push(canonicalContent(min, max))
  return parts.reduce(both)
}

/** A text as it stands between quotes. */
const inString = (value: string): Expression => text(JSON.stringify(value).slice(1, -1))

/** Runs a parser and puts the path before what it complains of. */
function located<T>(path: string, run: () => T): T {
  try {
    return run()
  } catch (error) {
    if (error instanceof UserError) fail(path, error.message.replace(/^constraint: /, ''))
    throw error
  }
}
