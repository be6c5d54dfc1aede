// Random JSON schemas, for tests and benchmarks of constrained decoding.
import type { Random } from '../src/core/random.ts'

type Schema = Record<string, unknown>

const NAMES = ['a', 'id', 'name', 'value', 'tags', 'é', 'x y', 'quote"', 'items', 'next', 'n1', 'toString']
const PATTERNS = ['^[a-z]+$', '^\\d{3}-\\d{4}$', 'foo|ba+r', '^(é|😀|"){1,3}$', '[A-Z]', '^\\w{2,8}$', '^$', '^[^x]*$']
const FORMATS = ['date', 'time', 'date-time', 'duration', 'email', 'hostname', 'ipv4', 'ipv6', 'uuid', 'uri']
const CONSTANTS = [null, true, 1.5, -3, 'on', 'ö"\\\n', ['x'], { k: [1, {}] }]

/** A satisfiable schema, the same for the same draws. About one in six refers to itself. */
export function randomSchema(draw: Random): Schema {
  const pick = <T>(list: readonly T[]): T => list[draw.integer(list.length)]
  const chance = (percent: number) => draw.integer(100) < percent
  const definitions: Record<string, unknown> = {}

  function string(): Schema {
    if (chance(20)) return { type: 'string', pattern: pick(PATTERNS) }
    if (chance(20)) return { type: 'string', format: pick(FORMATS) }
    if (chance(15))
      return { type: 'string', pattern: pick(['^[a-z]*$', '^(ab|é)*$']), minLength: draw.integer(3), maxLength: 6 }
    const schema: Schema = { type: 'string' }
    if (chance(40)) schema.minLength = draw.integer(4)
    if (chance(60)) schema.maxLength = 4 + draw.integer(20)
    return schema
  }

  function number(): Schema {
    const type = pick(['integer', 'number'])
    const low = draw.integer(2000) - 1000
    const scale = type === 'number' && chance(50) ? 0.01 : 1
    const schema: Schema = { type }
    if (chance(50)) schema[pick(['minimum', 'exclusiveMinimum'])] = low * scale
    if (chance(50)) schema[pick(['maximum', 'exclusiveMaximum'])] = (low + 30 + draw.integer(500)) * scale
    if (scale === 1 && chance(20)) schema.multipleOf = 1 + draw.integer(12)
    return schema
  }

  function array(depth: number): Schema {
    const schema: Schema = { type: 'array' }
    if (chance(80)) schema.items = any(depth - 1)
    if (chance(30)) schema.prefixItems = [any(depth - 1), any(depth - 1)]
    if (chance(40)) schema.minItems = draw.integer(3)
    if (chance(40)) schema.maxItems = 2 + draw.integer(4)
    return schema
  }

  function object(depth: number): Schema {
    const properties: Schema = {}
    for (let i = draw.integer(5); i > 0; i--) properties[pick(NAMES)] = any(depth - 1)
    const schema: Schema = { type: 'object', properties }
    if (chance(70)) schema.required = Object.keys(properties).filter(() => chance(60))
    if (chance(70)) schema.additionalProperties = chance(70) ? false : any(0)
    return schema
  }

  function map(): Schema {
    if (chance(50))
      return { type: 'object', patternProperties: { '^[a-c]{1,3}$': any(0) }, additionalProperties: false }
    return { type: 'object', propertyNames: { maxLength: 4 }, additionalProperties: any(0), maxProperties: 3 }
  }

  function combined(depth: number): Schema {
    const kind = draw.integer(4)
    if (kind === 0) return { anyOf: [any(depth - 1), any(depth - 1)] }
    if (kind === 1) return { oneOf: [string(), number(), { type: 'boolean' }, { const: null }] }
    if (kind === 2) {
      const { additionalProperties: _, ...open } = object(depth - 1)
      return { allOf: [open, { properties: { count: { type: 'integer' } }, required: ['count'] }] }
    }
    return {
      oneOf: ['cat', 'dog'].map((kind) => ({
        type: 'object',
        properties: { kind: { const: kind }, [kind]: any(depth - 1) },
        required: ['kind'],
        additionalProperties: false,
      })),
    }
  }

  function any(depth: number): Schema {
    if (depth > 0) {
      const kind = draw.integer(8)
      if (kind < 3) return object(depth)
      if (kind < 5) return array(depth)
      if (kind === 5) return combined(depth)
      if (kind === 6) return map()
    }
    const kind = draw.integer(8)
    if (kind < 3) return string()
    if (kind < 5) return number()
    if (kind === 5) return { enum: [pick(CONSTANTS), pick(CONSTANTS), pick(CONSTANTS)] }
    if (kind === 6) return { type: pick([['boolean', 'null'], 'boolean', ['string', 'integer']]) }
    return {}
  }

  const root = chance(80) ? object(3) : any(3)
  if (chance(15)) {
    definitions.node = {
      type: 'object',
      properties: { value: any(0), next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } },
      required: ['value', 'next'],
      additionalProperties: false,
    }
    return {
      $defs: definitions,
      type: 'object',
      properties: { list: { $ref: '#/$defs/node' }, root },
      required: ['list'],
    }
  }
  return root
}
