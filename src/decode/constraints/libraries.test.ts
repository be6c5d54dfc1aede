// Schemas as libraries write them: every text that is offered is valid for who wrote the schema.
import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { random } from '../../core/random.ts'
import { compileConstraint, createVocabulary } from './index.ts'

const EOS = 256
const vocabulary = createVocabulary({
  tokens: [...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), undefined],
  eosTokenIds: [EOS],
})
const ROOM = 300

/** Values that a schema offers, each byte drawn among those that are allowed. */
function draw(schema: unknown): unknown[] {
  const constraint = compileConstraint({ type: 'json_schema', schema }, vocabulary)
  return [1, 2, 3, 4, 5, 6].map((seed) => {
    const tracker = constraint.begin({ maxTokens: ROOM })
    const { integer } = random(seed)
    const bytes: number[] = []
    for (let position = 0; position < ROOM; position++) {
      tracker.open(1)
      const bits = tracker.allowed(position)
      const allowed = Array.from({ length: EOS + 1 }, (_, token) => token).filter(
        (token) => ((bits[token >> 5]! >>> (token & 31)) & 1) === 1,
      )
      // Quotation marks and brackets that end something come soon, so that most texts end before the room does.
      const ends = allowed.filter((token) => token === EOS || '"}]'.includes(String.fromCharCode(token)))
      // zod's patterns count other characters than JSON Schema's do beyond 16 bits.
      const plain = allowed.filter((token) => token < 0x7f)
      const from = ends.length > 0 && integer(4) === 0 ? ends : plain.length > 0 ? plain : allowed
      const token = from[integer(from.length)]!
      expect(tracker.commit(position, token)).toBe(true)
      if (token === EOS) break
      bytes.push(token)
    }
    return JSON.parse(Buffer.from(bytes).toString()) as unknown
  })
}

const tagged = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('cat'), lives: z.int() }),
  z.object({ kind: z.literal('dog'), good: z.boolean() }),
])
const node = z.object({
  value: z.int().min(0).max(9),
  get next() {
    return node.nullable()
  },
})

describe('zod', () => {
  const schemas: Record<string, z.ZodType> = {
    ...{
      email: z.email(),
      uuid: z.uuid(),
      guid: z.guid(),
      cuid: z.cuid(),
      cuid2: z.cuid2(),
      ulid: z.ulid(),
      xid: z.xid(),
      ksuid: z.ksuid(),
    },
    ...{
      nanoid: z.nanoid(),
      ipv4: z.ipv4(),
      ipv6: z.ipv6(),
      cidrv4: z.cidrv4(),
      cidrv6: z.cidrv6(),
      base64: z.base64(),
    },
    ...{ base64url: z.base64url(), e164: z.e164(), emoji: z.emoji(), hex: z.hex(), mac: z.mac() },
    ...{ lowercase: z.string().lowercase(), uppercase: z.string().uppercase() },
    'iso.date': z.iso.date(),
    'iso.time': z.iso.time(),
    'iso.datetime': z.iso.datetime(),
    'iso.datetime with an offset': z.iso.datetime({ offset: true }),
    'iso.duration': z.iso.duration(),
    url: z.url(),
    'startsWith, endsWith, includes': z.string().startsWith('ab').endsWith('yz').includes('m').max(12),
    'two patterns': z.string().regex(/^a/).regex(/z$/).max(8),
    'a password': z.string().regex(/^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?!.*\s).{8,12}$/),
    'a record': z.record(z.string(), z.int()),
    'a record of an enum': z.record(z.enum(['a', 'b']), z.boolean()),
    'a partial record of an enum': z.partialRecord(z.enum(['a', 'b', 'c']), z.boolean()),
    'a record of a pattern': z.record(z.string().regex(/^[a-c]{2}$/), z.boolean()),
    'a loose object': z.looseObject({ a: z.int(), b: z.string().max(3).optional() }),
    'a tuple with a rest': z.tuple([z.boolean(), z.int()]).rest(z.null()),
    'nullable and default': z.object({ a: z.string().max(2).nullable(), b: z.int().default(3) }),
    'an enum and literals': z.object({ a: z.enum(['x', 'y']), b: z.literal([1, 'two', null]) }),
    'a discriminated union': tagged,
    'a recursive object': node,
    'a template': z.templateLiteral(['v', z.int(), '.', z.int()]),
    'an intersection': z.intersection(z.object({ a: z.int() }), z.object({ b: z.boolean() })),
  }
  test.each(Object.keys(schemas))('%s', (name) => {
    const schema = schemas[name]!
    // OpenAPI 3.0 cannot say all that the others do.
    const targets = name.startsWith('nullable') || name === 'a recursive object' ? ['openapi-3.0' as const] : []
    for (const target of ['draft-2020-12', 'draft-7', ...targets] as const)
      for (const value of draw(z.toJSONSchema(schema, { target, io: 'input' })))
        expect(schema.safeParse(value).error, `${target}: ${JSON.stringify(value)}`).toBe(undefined)
  })
})

// As pydantic 2 writes them.
const kinds = {
  Cat: {
    properties: { kind: { const: 'cat', default: 'cat', title: 'Kind', type: 'string' }, lives: { type: 'integer' } },
    required: ['lives'],
    title: 'Cat',
    type: 'object',
  },
  Dog: {
    properties: { kind: { const: 'dog', default: 'dog', title: 'Kind', type: 'string' }, good: { type: 'boolean' } },
    required: ['good'],
    title: 'Dog',
    type: 'object',
  },
}

describe('pydantic', () => {
  const schemas: Record<string, object> = {
    'a union with a discriminator': {
      $defs: kinds,
      properties: {
        pet: {
          discriminator: { mapping: { cat: '#/$defs/Cat', dog: '#/$defs/Dog' }, propertyName: 'kind' },
          oneOf: [{ $ref: '#/$defs/Cat' }, { $ref: '#/$defs/Dog' }],
          title: 'Pet',
        },
      },
      required: ['pet'],
      title: 'Owner',
      type: 'object',
    },
    'a decimal': {
      anyOf: [{ type: 'number' }, { pattern: '^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$', type: 'string' }],
      title: 'Price',
    },
    'optional, with a default': {
      properties: { a: { anyOf: [{ type: 'integer' }, { type: 'null' }], default: null, title: 'A', examples: [1] } },
      title: 'M',
      type: 'object',
    },
    'a path and a password': {
      properties: {
        file: { format: 'path', title: 'File', type: 'string' },
        secret: { format: 'password', title: 'Secret', type: 'string', writeOnly: true },
      },
      required: ['file', 'secret'],
      title: 'M',
      type: 'object',
    },
    'a dictionary of an enum': {
      $defs: { Colour: { enum: ['red', 'blue'], title: 'Colour', type: 'string' } },
      additionalProperties: { type: 'integer' },
      propertyNames: { $ref: '#/$defs/Colour' },
      type: 'object',
    },
    'a tuple': {
      maxItems: 2,
      minItems: 2,
      prefixItems: [{ type: 'integer' }, { type: 'string', maxLength: 3 }],
      type: 'array',
    },
  }
  test.each(Object.keys(schemas))('%s', (name) => {
    const ajv = new Ajv2020({ strict: false, validateFormats: false, discriminator: false })
    const valid = ajv.compile(schemas[name]!)
    for (const value of draw(schemas[name])) {
      expect(valid(value), JSON.stringify(value)).toBe(true)
      // What distinguishes the alternatives is there, so that its reader knows which it is.
      if (name.includes('discriminator'))
        expect(['cat', 'dog']).toContain((value as { pet: { kind: string } }).pet.kind)
    }
  })
})

test('names that propertyNames forbids are offered to nobody', () => {
  const schema = {
    type: 'object',
    properties: { a: { const: 1 }, bb: { const: 2 } },
    propertyNames: { maxLength: 1 },
    required: ['a'],
  }
  for (const value of draw(schema)) expect(value).toEqual({ a: 1 })
  const impossible = { type: 'object', propertyNames: { enum: ['a'] }, required: ['b'] }
  expect(() => draw(impossible)).toThrow(/no text satisfies it/)
})
