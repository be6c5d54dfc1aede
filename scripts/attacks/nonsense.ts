// Requests made of the server's own OpenAPI document and of nonsense: `npx tsx scripts/attacks/nonsense.ts URL [--count 10000]
// [--seed 1] [--seconds 30]`. No answer is a 5xx or comes later than `--seconds`; exit code 1 where one is. Start the server
// with limits.seconds and limits.queue_seconds that together are less, and a small limits.output_tokens.
import { parseArgs } from 'node:util'
import { print, report, reportRun } from '../../bench/measure.ts'
import { type Random, random } from '../../src/core/random.ts'
import type { JsonSchema, OpenApiDocument } from '../../src/serve/openapi.ts'
import { damageBytes, damageJson } from './damage.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: 'string', default: '10000' },
    seed: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '30' },
  },
})
const [url] = positionals
if (url === undefined) {
  process.stderr.write('usage: npx tsx scripts/attacks/nonsense.ts URL [--count 10000] [--seed 1] [--seconds 30]\n')
  process.exit(2)
}
reportRun(`npx tsx scripts/attacks/nonsense.ts ${process.argv.slice(2).join(' ')}`, undefined)

const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as OpenApiDocument
const routes = Object.entries(paths).flatMap(([path, { post }]) => {
  const schema = post?.requestBody?.content['application/json'].schema
  return schema ? [{ path, schema }] : []
})
const texts = [
  '',
  'a',
  'the people of ',
  '\u0000',
  '\ud800',
  '<|im_start|>',
  '{{ x }}',
  '(a+)+$',
  'é😊',
  '../../etc/passwd',
  '9'.repeat(400),
  'user',
  'text',
  'function',
]
const pick = <T>(draw: Random, from: readonly T[]): T => from[draw.integer(from.length)]!

/** A value that a schema allows, more or less. */
function drawValue(schema: JsonSchema, draw: Random, depth = 0): unknown {
  if (depth > 8) return null
  const forms = schema.anyOf ?? schema.oneOf
  if (forms) return drawValue(pick(draw, forms), draw, depth + 1)
  if ('const' in schema) return schema.const
  if (Array.isArray(schema.enum)) return pick(draw, schema.enum)
  const least = Number(schema.minimum ?? -2)
  switch (Array.isArray(schema.type) ? pick(draw, schema.type) : schema.type) {
    case 'string':
      return pick(draw, texts)
    case 'boolean':
      return draw.integer(2) === 1
    case 'integer':
      return pick(draw, [least, least + 1, Math.min(Number(schema.maximum ?? 40), 40), 3])
    case 'number':
      return pick(draw, [least, 0.5, Number(schema.maximum ?? 1), -0, 1e-300])
    case 'array':
      return Array.from({ length: draw.integer(4) }, () => drawValue(schema.items ?? {}, draw, depth + 1))
    case 'object':
      return Object.fromEntries(
        Object.entries(schema.properties ?? {})
          .filter(([name]) => schema.required?.includes(name) || draw.integer(4) === 0)
          .map(([name, part]) => [name, drawValue(part, draw, depth + 1)]),
      )
    case 'null':
      return null
    default:
      return pick(draw, [null, 1, 'a', [], {}, { type: 'object', properties: { a: { pattern: '(a|b)*c' } } }])
  }
}

const counts = new Map<string, number>()
let [slowest, faults] = [0, 0]
const seed = Number(values.seed)
const limit = Number(values.seconds) * 1000

async function attempt(index: number): Promise<void> {
  const draw = random(seed, index)
  const { path, schema } = pick(draw, routes)
  const made = drawValue(schema, draw)
  const kind = draw.integer(4)
  const text = JSON.stringify(kind === 1 || kind === 2 ? damageJson(made, draw) : made)
  const body = kind === 3 ? damageBytes(Buffer.from(text), draw) : Buffer.from(text)
  const since = performance.now()
  let outcome: string
  try {
    const answer = await fetch(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Uint8Array(body),
      signal: AbortSignal.timeout(limit),
    })
    const said = await answer.text()
    outcome = answer.status < 500 && !said.includes('"internal_error"') ? `${answer.status}` : '5xx'
  } catch (error) {
    outcome = error instanceof Error && error.name === 'TimeoutError' ? 'late' : 'broken off'
  }
  slowest = Math.max(slowest, performance.now() - since)
  counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  if (/^\d/.test(outcome) && outcome !== '5xx') return
  faults++
  print({ fault: outcome, seed, index, path, body: body.toString().slice(0, 2000) })
}

let next = 0
const count = Number(values.count)
await Promise.all(
  Array.from({ length: 4 }, async () => {
    while (next < count) await attempt(next++)
  }),
)
for (const [outcome, value] of [...counts].sort())
  report({ bench: 'nonsense', case: `answers ${outcome}`, value, unit: '' })
report({ bench: 'nonsense', case: 'slowest answer', value: slowest / 1000, unit: 's' })
report({ bench: 'nonsense', case: 'faults', value: faults, unit: '' })
process.exitCode = faults === 0 ? 0 : 1
