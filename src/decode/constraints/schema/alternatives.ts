// Schemas with references and combinations as schemas without, of which one must hold.
import {
  canonical,
  excerpt,
  fail,
  finite,
  isObject,
  isOfType,
  type Json,
  open,
  properties,
  type Schema,
  schemas,
  strings,
  type TypeName,
  typesOf,
  valuesOf,
} from './source.ts'

/** Ways in which `anyOf`, `oneOf` and `allOf` of one schema combine. */
const ALTERNATIVES = 256
/** Steps that a combination of schemas counts for. */
const COMBINATION = 80
/** References that lead to each other where their schemas have to be merged. */
const REFERENCES = 64

export interface Alternatives {
  /** What a reference inside the schema leads to. */
  resolve(reference: Json, path: string): { schema: Json; path: string }
  /** A schema as schemas without references and combinations. */
  of(schema: Json, path: string): Schema[]
}

/** `spend` takes the work of a combination from the budget. */
export function createAlternatives(root: Json, spend: (work: number) => void): Alternatives {
  /** The text of a value: equal for equal values. */
  function textOf(value: Json): string {
    const written = canonical(value)
    spend(written.length)
    return written
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

  return { resolve, of: (schema, path) => alternatives(schema, path, 0) }
}

function mergeProperties(a: Schema, b: Schema, merged: Record<string, Json>): void {
  const relevant = ['properties', 'additionalProperties', 'patternProperties', 'propertyNames']
  const has = (schema: Schema) => relevant.some((key) => schema.keywords[key] !== undefined)
  if (!has(a) || !has(b)) return
  for (const schema of [a, b])
    for (const key of relevant.slice(2))
      if (schema.keywords[key] !== undefined) fail(`${schema.path}/${key}`, 'cannot be combined with other properties')
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

/** A schema of both; those of many stay one list. */
function together(a: Json | undefined, b: Json | undefined): Json {
  if (a === undefined || a === true) return b ?? true
  if (b === undefined || b === true) return a
  const parts = (schema: Json) =>
    isObject(schema) && Object.keys(schema).join() === 'allOf' && Array.isArray(schema.allOf) ? schema.allOf : [schema]
  return { allOf: [...parts(a), ...parts(b)] }
}

/** Object.fromEntries for names from outside, `__proto__` too. */
const fromEntries = (entries: [string, Json][]): { [key: string]: Json } => Object.fromEntries(entries)
