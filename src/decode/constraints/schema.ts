// JSON schemas (draft 2020-12) as grammars of the JSON texts that are valid against them.
//
// Every text of the grammar is valid; not every valid document is offered. Properties come in the order of the schema, and
// only those that it names unless `additionalProperties` asks for more; numbers and formats keep to common forms.
// A keyword that would have to restrict the text and is not supported is an error that names its path.
import { UserError } from '../../core/types.ts'
import {
  both,
  choice,
  type Expression,
  empty,
  except,
  type Grammar,
  nothing,
  optional,
  repeat,
  rule,
  sequence,
  text,
} from './expression.ts'
import { formats, plainFormats } from './formats.ts'
import {
  type Bounds,
  canonicalContent,
  colon,
  comma,
  integer,
  jsonCharacter,
  jsonRules,
  list,
  number,
  quoted,
  stringContent,
} from './json.ts'
import { type Budget, LIMITS, tooLarge } from './limits.ts'
import { parseRegex } from './regex.ts'

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** A schema that is an object, checked to hold known keywords only, and where it stands in the source, for errors. */
interface Schema {
  path: string
  keywords: Readonly<Record<string, Json>>
}

const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const
type TypeName = (typeof TYPES)[number]

/** Keywords that restrict a value of one type only. */
const KEYWORDS: Readonly<Record<string, readonly TypeName[]>> = {
  properties: ['object'],
  required: ['object'],
  additionalProperties: ['object'],
  patternProperties: ['object'],
  propertyNames: ['object'],
  minProperties: ['object'],
  maxProperties: ['object'],
  items: ['array'],
  prefixItems: ['array'],
  minItems: ['array'],
  maxItems: ['array'],
  uniqueItems: ['array'],
  minLength: ['string'],
  maxLength: ['string'],
  pattern: ['string'],
  format: ['string'],
  minimum: ['number'],
  maximum: ['number'],
  exclusiveMinimum: ['number'],
  exclusiveMaximum: ['number'],
  multipleOf: ['number'],
  nullable: [],
  additionalItems: ['array'],
}

const COMBINING = new Set(['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', 'discriminator'])

/** Keywords that say nothing about which documents are valid. */
const ANNOTATIONS = new Set([
  '$schema',
  '$id',
  '$comment',
  '$defs',
  'definitions',
  'title',
  'description',
  'default',
  'examples',
  'deprecated',
  'readOnly',
  'writeOnly',
  'contentEncoding',
  'contentMediaType',
  'contentSchema',
])

/** Ways in which `anyOf`, `oneOf` and `allOf` of one schema combine. */
const ALTERNATIVES = 256
/** Steps that a combination of schemas counts for. */
const COMBINATION = 80
/** Largest `multipleOf`. */
const MULTIPLE = 1000
/** References that lead to each other where their schemas have to be merged. */
const REFERENCES = 64

function fail(path: string, what: string): never {
  throw new UserError(`constraint: JSON schema at ${path}: ${what}`)
}

/** Throws UserError naming the path of what is wrong, unsupported or too large. */
export function schemaGrammar(source: unknown, budget: Budget): Grammar {
  const root = checkJson(source)
  const rules = new Map(jsonRules)
  /** Rules by the schema's text: equal schemas share one, and recursion ends. */
  const names = new Map<string, string>()
  const pending: { name: string; schema: Json; path: string }[] = []

  function spend(work: number): void {
    budget.work -= work
    if (budget.work < 0) tooLarge('the JSON schema combines too many parts')
  }

  /** The text of a value: equal for equal values. */
  function textOf(value: Json): string {
    const written = canonical(value)
    spend(written.length)
    return written
  }

  /** The rule of a schema. */
  function compile(schema: Json, path: string): Expression {
    if (schema === true) return rule('value')
    if (schema === false) return nothing
    const { keywords } = open(schema, path)
    const { $ref: reference } = keywords
    if (reference !== undefined && Object.keys(keywords).length === 1) {
      const target = resolve(reference, `${path}/$ref`)
      // A definition's rule carries its path; what it is called in messages.
      return named(target.schema, target.path)
    }
    return named(schema, path)
  }

  function named(schema: Json, path: string): Expression {
    if (schema === true) return rule('value')
    if (schema === false) return nothing
    const key = JSON.stringify(schema)
    let name = names.get(key)
    if (name === undefined) {
      name = rules.has(path) ? `${path} (${rules.size})` : path
      names.set(key, name)
      if (rules.size >= LIMITS.rules) tooLarge(`the JSON schema has more than ${LIMITS.rules} parts`)
      rules.set(name, nothing)
      // Later: long chains of references would exhaust the stack.
      pending.push({ name, schema, path })
    }
    return rule(name)
  }

  /** Checks the keywords of a schema, drops those without effect and writes older forms as draft 2020-12 does. */
  function open(schema: Json, path: string): Schema {
    if (schema === true) return { path, keywords: {} }
    if (!isObject(schema)) fail(path, `expected an object, true or false, got ${excerpt(schema)}`)
    const keywords: Record<string, Json> = {}
    for (const [key, value] of Object.entries(schema)) {
      if (ANNOTATIONS.has(key) || key.startsWith('x-')) continue
      if (!COMBINING.has(key) && !Object.hasOwn(KEYWORDS, key))
        fail(path, `the keyword ${JSON.stringify(key)} is not supported`)
      keywords[key] = value
    }
    return { path, keywords: modern(keywords) }
  }

  function resolve(reference: Json, path: string): { schema: Json; path: string } {
    if (typeof reference !== 'string' || !/^#(\/|$)/.test(reference))
      fail(path, `only references inside the schema are supported ("#/..."), not ${excerpt(reference)}`)
    let schema: Json | undefined = root
    for (const part of reference.split('/').slice(1)) {
      let key = part
      try {
        key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
      } catch {
        fail(path, `${excerpt(reference)} is not a valid reference`)
      }
      schema =
        typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key) ? (schema as never)[key] : undefined
      if (schema === undefined) fail(path, `${excerpt(reference)} leads nowhere`)
    }
    return { schema, path: reference }
  }

  /** A schema as schemas without references and combinations, of which one must hold. */
  function alternatives(schema: Json, path: string, references: number): Schema[] {
    spend(COMBINATION)
    if (schema === false) return []
    const { keywords } = open(schema, path)
    const { $ref, allOf, anyOf, oneOf, discriminator, ...own } = keywords
    let found: Schema[] = [{ path, keywords: own }]
    const combined = (others: Schema[]) => {
      if (found.length * others.length > ALTERNATIVES) fail(path, `combines in more than ${ALTERNATIVES} ways`)
      return found.flatMap((a) => others.flatMap((b) => merge(a, b)))
    }
    if ($ref !== undefined) {
      if (references > REFERENCES) fail(`${path}/$ref`, 'references lead in a circle')
      const target = resolve($ref, `${path}/$ref`)
      found = combined(alternatives(target.schema, target.path, references + 1))
    }
    for (const [i, part] of schemas(allOf, `${path}/allOf`).entries())
      found = combined(alternatives(part, `${path}/allOf/${i}`, references + 1))
    // The property that distinguishes the alternatives is in each of them.
    if (anyOf !== undefined || oneOf !== undefined) {
      const tag = isObject(discriminator) ? discriminator.propertyName : undefined
      if (typeof tag === 'string') found = combined([{ path, keywords: { required: [tag] } }])
    }
    const options = (parts: Json[], name: string) =>
      parts.map((part, i) => alternatives(part, `${path}/${name}/${i}`, references + 1))
    if (anyOf !== undefined) found = combined(options(schemas(anyOf, `${path}/anyOf`), 'anyOf').flat())
    if (oneOf !== undefined) {
      const each = options(schemas(oneOf, `${path}/oneOf`), 'oneOf').map((branch) => combined(branch))
      for (let i = 0; i < each.length; i++)
        for (let j = 0; j < i; j++)
          for (const a of each[i])
            for (const b of each[j])
              if (!disjoint(a, b, 0))
                fail(
                  `${path}/oneOf`,
                  `a document may be valid against both ${j} and ${i}; use anyOf, or make them differ in the type or in a constant of a required property`,
                )
      found = each.flat()
    }
    return found
  }

  /** Schemas that together hold where both hold: none or one. */
  function merge(a: Schema, b: Schema): Schema[] {
    if (Object.keys(b.keywords).length === 0) return [a]
    if (Object.keys(a.keywords).length === 0) return [b]
    const path = a.path
    const merged: Record<string, Json> = { ...a.keywords }
    const types = [typesOf(a), typesOf(b)]
    const values = valuesOf(a)
    const others = valuesOf(b)
    if (types[0] && types[1]) {
      const common = types[0].filter((type) => types[1]!.includes(type))
      // Integers are numbers.
      const [x, y] = types
      if (!common.includes('integer') && x.concat(y).includes('integer') && x.concat(y).includes('number'))
        common.push('integer')
      if (common.length === 0) return []
      merged.type = common
    } else if (types[1]) merged.type = types[1]
    if (values && others) {
      const texts = new Set(others.map(textOf))
      delete merged.const
      merged.enum = values.filter((value) => texts.has(textOf(value)))
    } else if (others) merged.enum = others
    for (const [key, value] of Object.entries(b.keywords)) {
      if (key === 'type' || key === 'enum' || key === 'const') continue
      const own = merged[key]
      if (own === undefined || textOf(own) === textOf(value)) merged[key] = value
      else if (key === 'minimum' || key === 'exclusiveMinimum' || /^min[A-Z]/.test(key))
        merged[key] = Math.max(finite(own, `${path}/${key}`), finite(value, `${b.path}/${key}`))
      else if (key === 'maximum' || key === 'exclusiveMaximum' || /^max[A-Z]/.test(key))
        merged[key] = Math.min(finite(own, `${path}/${key}`), finite(value, `${b.path}/${key}`))
      else if (key === 'required')
        merged[key] = [...new Set([...strings(own, `${path}/${key}`), ...strings(value, `${b.path}/${key}`)])]
      else if (key === 'items') merged[key] = together(own, value)
      else if (key === 'pattern' || key === 'format') merged[key] = [own, value].flat()
      else if (key === 'uniqueItems') merged[key] = own === true || value === true
      else if (key !== 'properties' && key !== 'additionalProperties')
        fail(`${b.path}/${key}`, `cannot be combined with the ${key} of ${path}`)
    }
    if (
      (a.keywords.items ?? a.keywords.prefixItems) !== undefined &&
      (b.keywords.items ?? b.keywords.prefixItems) !== undefined
    )
      if (a.keywords.prefixItems !== undefined || b.keywords.prefixItems !== undefined)
        if (textOf(a.keywords.prefixItems ?? null) !== textOf(b.keywords.prefixItems ?? null))
          fail(path, 'prefixItems cannot be combined with other items')
    mergeProperties(a, b, merged)
    return [{ path, keywords: merged }]
  }

  function mergeProperties(a: Schema, b: Schema, merged: Record<string, Json>): void {
    const relevant = ['properties', 'additionalProperties', 'patternProperties', 'propertyNames']
    const has = (schema: Schema) => relevant.some((key) => schema.keywords[key] !== undefined)
    if (!has(a) || !has(b)) return
    for (const schema of [a, b])
      for (const key of relevant.slice(2))
        if (schema.keywords[key] !== undefined)
          fail(`${schema.path}/${key}`, 'cannot be combined with other properties')
    const [left, right] = [a, b].map((schema) => ({
      properties: properties(schema),
      others: schema.keywords.additionalProperties,
    }))
    const names = new Set([...left.properties.keys(), ...right.properties.keys()])
    merged.properties = fromEntries(
      [...names].map((name) => [
        name,
        together(left.properties.get(name) ?? left.others, right.properties.get(name) ?? right.others),
      ]),
    )
    if (left.others !== undefined || right.others !== undefined)
      merged.additionalProperties =
        left.others === false || right.others === false ? false : together(left.others, right.others)
  }

  /** Whether certainly no document is valid against both. */
  function disjoint(a: Schema, b: Schema, depth: number): boolean {
    const values = valuesOf(a)
    const others = valuesOf(b)
    const types = [typesOf(a), typesOf(b)]
    if (values && others) {
      const texts = new Set(others.map(textOf))
      if (!values.some((value) => texts.has(textOf(value)))) return true
    }
    if (values && types[1] && !values.some((value) => isOfType(value, types[1]!))) return true
    if (others && types[0] && !others.some((value) => isOfType(value, types[0]!))) return true
    if (!types[0] || !types[1]) return false
    const numeric = (type: TypeName) => (type === 'integer' ? 'number' : type)
    const common = types[0].filter((type) => types[1]!.some((other) => numeric(type) === numeric(other)))
    if (common.length === 0) return true
    if (common.some((type) => type !== 'object') || depth > 3) return false
    const required = [a, b].map((schema) => new Set(strings(schema.keywords.required, `${schema.path}/required`)))
    const [own, other] = [properties(a), properties(b)]
    for (const name of required[0])
      if (!other.has(name) && b.keywords.additionalProperties === false && b.keywords.patternProperties === undefined)
        return true
    for (const name of required[1])
      if (!own.has(name) && a.keywords.additionalProperties === false && a.keywords.patternProperties === undefined)
        return true
    for (const name of required[0]) {
      const [x, y] = [own.get(name), other.get(name)]
      if (!required[1].has(name) || x === undefined || y === undefined) continue
      const left = alternatives(x, `${a.path}/properties/${name}`, 0)
      const right = alternatives(y, `${b.path}/properties/${name}`, 0)
      if (left.every((p) => right.every((q) => disjoint(p, q, depth + 1)))) return true
    }
    return false
  }

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

  /** A rule for what is used in more than one place. */
  function shared(expression: Expression, name: string): Expression {
    let free = name
    for (let i = 2; rules.has(free); i++) free = `${name} ${i}`
    if (rules.size >= LIMITS.rules) tooLarge(`the JSON schema has more than ${LIMITS.rules} parts`)
    rules.set(free, expression)
    return rule(free)
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
    const options = alternatives(propertyNames, `${path}/propertyNames`, 0).map((schema) => {
      const values = valuesOf(schema)
      if (values) return choice(...values.filter((value) => typeof value === 'string').map(inString))
      const types = typesOf(schema)
      if (types && !types.includes('string')) return nothing
      return both(canonicalContent(0, Number.POSITIVE_INFINITY), content(schema))
    })
    return choice(...options)
  }

  const whole = compile(root, '#')
  for (let next = pending.pop(); next !== undefined; next = pending.pop())
    rules.set(next.name, choice(...alternatives(next.schema, next.path, 0).map(simple)))
  return { root: whole, rules }
}

/** Older forms as draft 2020-12 has them: `nullable` of OpenAPI, tuples up to draft 7, exclusive bounds of draft 4. */
function modern({ nullable, additionalItems, ...rest }: Record<string, Json>): Record<string, Json> {
  if (nullable === true) {
    if (rest.type === undefined) return { anyOf: [rest, { type: 'null' }] }
    rest.type = [rest.type, 'null'].flat()
  }
  if (Array.isArray(rest.items)) {
    rest.prefixItems = rest.items
    if (additionalItems === undefined) delete rest.items
    else rest.items = additionalItems
  }
  for (const [exclusive, bound] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ]) {
    if (typeof rest[exclusive] !== 'boolean') continue
    if (rest[exclusive] && rest[bound] !== undefined) {
      rest[exclusive] = rest[bound]
      delete rest[bound]
    } else delete rest[exclusive]
  }
  return rest
}

/** A schema of both; those of many stay one list. */
function together(a: Json | undefined, b: Json | undefined): Json {
  if (a === undefined || a === true) return b ?? true
  if (b === undefined || b === true) return a
  const parts = (schema: Json) =>
    isObject(schema) && Object.keys(schema).join() === 'allOf' && Array.isArray(schema.allOf) ? schema.allOf : [schema]
  return { allOf: [...parts(a), ...parts(b)] }
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

function typesOf({ path, keywords: { type } }: Schema): TypeName[] | undefined {
  if (type === undefined) return undefined
  const names = Array.isArray(type) ? type : [type]
  const known = names.filter((name): name is TypeName => (TYPES as readonly Json[]).includes(name))
  if (known.length < names.length || names.length === 0) fail(`${path}/type`, `unknown type ${excerpt(type)}`)
  return known.includes('number') ? known.filter((name) => name !== 'integer') : known
}

/** The values that enum and const leave; undefined where there is neither. */
function valuesOf({ path, keywords }: Schema): Json[] | undefined {
  const { enum: list, const: constant } = keywords
  if (list === undefined) return constant === undefined ? undefined : [constant]
  if (!Array.isArray(list)) fail(`${path}/enum`, `expected a list, got ${excerpt(list)}`)
  return constant === undefined ? list : list.filter((value) => canonical(value) === canonical(constant))
}

function isOfType(value: Json, types: readonly TypeName[]): boolean {
  if (value === null) return types.includes('null')
  if (Array.isArray(value)) return types.includes('array')
  if (typeof value === 'number')
    return types.includes('number') || (types.includes('integer') && Number.isInteger(value))
  return types.includes(typeof value as TypeName)
}

function properties({ path, keywords }: Schema): Map<string, Json> {
  const value = keywords.properties
  if (value === undefined) return new Map()
  if (!isObject(value)) fail(`${path}/properties`, `expected an object, got ${excerpt(value)}`)
  return new Map(Object.entries(value))
}

function schemas(value: Json | undefined, path: string): Json[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) fail(path, `expected a list of schemas, got ${excerpt(value)}`)
  return value
}

function strings(value: Json | undefined, path: string): string[] {
  if (value === undefined) return []
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === 'string'))
    fail(path, `expected a list of strings, got ${excerpt(value)}`)
  return value
}

function finite(value: Json, path: string): number {
  if (typeof value !== 'number') fail(path, `expected a number, got ${excerpt(value)}`)
  return value
}

function count(value: Json | undefined, path: string, absent: number): number {
  if (value === undefined) return absent
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    fail(path, `expected a whole number of at least 0, got ${excerpt(value)}`)
  return value
}

const isObject = (value: Json | undefined): value is { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Object.fromEntries for names from outside, `__proto__` too. */
const fromEntries = (entries: [string, Json][]): { [key: string]: Json } => Object.fromEntries(entries)

/** The text of a value with sorted keys: equal for equal values. */
function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (!isObject(value)) return JSON.stringify(value)
  const keys = Object.keys(value).sort()
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`
}

const pointer = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1')

function excerpt(value: Json): string {
  const whole = JSON.stringify(value)
  return whole.length > 60 ? `${whole.slice(0, 60)}…` : whole
}

/** A copy of what JSON can hold, in size and nesting within the limits. */
function checkJson(source: unknown): Json {
  let whole: string | undefined
  const depthOf = (value: unknown, depth: number): void => {
    if (depth > LIMITS.nesting) fail('#', `is nested more than ${LIMITS.nesting} deep`)
    if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) depthOf(part, depth + 1)
  }
  depthOf(source, 0)
  try {
    whole = JSON.stringify(source)
  } catch (error) {
    fail('#', `is not JSON: ${error instanceof Error ? error.message : error}`)
  }
  if (whole === undefined) fail('#', 'is not JSON')
  if (whole.length > LIMITS.source) tooLarge(`the JSON schema has more than ${LIMITS.source} characters`)
  return JSON.parse(whole)
}
