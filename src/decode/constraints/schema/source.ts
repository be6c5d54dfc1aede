// JSON schemas as they come: checked to hold known keywords only, older forms written as draft 2020-12 does, and their
// keywords read with errors that name the path.
import { UserError } from '../../../core/types.ts'
import { LIMITS, tooLarge } from '../limits.ts'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** A schema that is an object, checked to hold known keywords only, and where it stands in the source, for errors. */
export interface Schema {
  path: string
  keywords: Readonly<Record<string, Json>>
}

const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const
export type TypeName = (typeof TYPES)[number]

/** Keywords that restrict a value of one type only. */
export const KEYWORDS: Readonly<Record<string, readonly TypeName[]>> = {
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

export function fail(path: string, what: string): never {
  throw new UserError(`constraint: JSON schema at ${path}: ${what}`)
}

/** Checks the keywords of a schema, drops those without effect and writes older forms as draft 2020-12 does. */
export function open(schema: Json, path: string): Schema {
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

export function typesOf({ path, keywords: { type } }: Schema): TypeName[] | undefined {
  if (type === undefined) return undefined
  const names = Array.isArray(type) ? type : [type]
  const known = names.filter((name): name is TypeName => (TYPES as readonly Json[]).includes(name))
  if (known.length < names.length || names.length === 0) fail(`${path}/type`, `unknown type ${excerpt(type)}`)
  return known.includes('number') ? known.filter((name) => name !== 'integer') : known
}

/** The values that enum and const leave; undefined where there is neither. */
export function valuesOf({ path, keywords }: Schema): Json[] | undefined {
  const { enum: list, const: constant } = keywords
  if (list === undefined) return constant === undefined ? undefined : [constant]
  if (!Array.isArray(list)) fail(`${path}/enum`, `expected a list, got ${excerpt(list)}`)
  return constant === undefined ? list : list.filter((value) => canonical(value) === canonical(constant))
}

export function isOfType(value: Json, types: readonly TypeName[]): boolean {
  if (value === null) return types.includes('null')
  if (Array.isArray(value)) return types.includes('array')
  if (typeof value === 'number')
    return types.includes('number') || (types.includes('integer') && Number.isInteger(value))
  return types.includes(typeof value as TypeName)
}

export function properties({ path, keywords }: Schema): Map<string, Json> {
  const value = keywords.properties
  if (value === undefined) return new Map()
  if (!isObject(value)) fail(`${path}/properties`, `expected an object, got ${excerpt(value)}`)
  return new Map(Object.entries(value))
}

export function schemas(value: Json | undefined, path: string): Json[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) fail(path, `expected a list of schemas, got ${excerpt(value)}`)
  return value
}

export function strings(value: Json | undefined, path: string): string[] {
  if (value === undefined) return []
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === 'string'))
    fail(path, `expected a list of strings, got ${excerpt(value)}`)
  return value
}

export function finite(value: Json, path: string): number {
  if (typeof value !== 'number') fail(path, `expected a number, got ${excerpt(value)}`)
  return value
}

export function count(value: Json | undefined, path: string, absent: number): number {
  if (value === undefined) return absent
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    fail(path, `expected a whole number of at least 0, got ${excerpt(value)}`)
  return value
}

export const isObject = (value: Json | undefined): value is { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The text of a value with sorted keys: equal for equal values. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (!isObject(value)) return JSON.stringify(value)
  const keys = Object.keys(value).sort()
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`
}

export const pointer = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1')

export function excerpt(value: Json): string {
  const whole = JSON.stringify(value)
  return whole.length > 60 ? `${whole.slice(0, 60)}…` : whole
}

/** A copy of what JSON can hold, in size and nesting within the limits. */
export function checkJson(source: unknown): Json {
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
