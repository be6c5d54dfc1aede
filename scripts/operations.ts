// The table of operations in docs/programs.md, from the registry.
import { z } from 'zod'
import { operations } from '../src/graph/ops/index.ts'
import type { Operation } from '../src/graph/tensor.ts'
import { table } from './benchmarks/markdown.ts'

const BEGIN = '<!-- operations: made by `npm run docs:programs` -->'
const END = '<!-- /operations -->'

/** The page with its table made anew. Throws where it has no place for it. */
export function withOperations(page: string): string {
  const [before, rest] = page.split(BEGIN)
  const after = rest?.split(END)[1]
  if (after === undefined) throw new Error(`docs/programs.md: expected ${BEGIN} and ${END}`)
  const sorted = [...operations.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  const rows = sorted.map((operation) => [
    `\`${operation.name}\``,
    operation.inputs.join(', '),
    attributesOf(operation),
    operation.outputs.join(', '),
    operation.gradient ? 'yes' : '',
  ])
  const head = ['operation', 'inputs', 'attributes', 'outputs', 'gradient']
  return `${before}${BEGIN}\n\n${table([head, ...rows])}\n\n${END}${after}`
}

function attributesOf({ name, attributes }: Operation<never>): string {
  if (name === 'constant') return '`tensor`: name in the constants'
  const { properties = {}, required = [] } = z.toJSONSchema(attributes)
  return Object.entries(properties)
    .map(([key, schema]) => `\`${key}\`${required.includes(key) ? '' : '?'}: ${typeOf(schema)}`)
    .join('; ')
}

function typeOf(schema: z.core.JSONSchema._JSONSchema): string {
  if (typeof schema === 'boolean') return 'anything'
  if (schema.const !== undefined) return String(schema.const)
  if (schema.enum) return schema.enum.join(', ')
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' or ')
  if (schema.type === 'array') return `[${typeOf(schema.items as z.core.JSONSchema._JSONSchema)}]`
  if (schema.type !== 'object') return String(schema.type)
  const fields = Object.entries(schema.properties ?? {}).map(([key, field]) => `${key}: ${typeOf(field)}`)
  return `{ ${fields.join(', ')} }`
}
