// Many clients for minutes against a running server: no error, and no answer that differs from that of the same request
// alone. `npx tsx scripts/soak.ts URL [--clients 32] [--seconds 300] [--model NAME...]`; exit code 1 where it fails.
import { parseArgs } from 'node:util'
import { reportRun } from '../bench/measure.ts'
import { random } from '../src/core/random.ts'
import { type LoadAnswer, type LoadRequest, streamCompletion, summarize } from '../src/serve/load-test.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: 'string', default: '32' },
    seconds: { type: 'string', default: '300' },
    model: { type: 'string', multiple: true },
  },
})
const [url] = positionals
if (url === undefined) {
  process.stderr.write('usage: npx tsx scripts/soak.ts URL [--clients 32] [--seconds 300] [--model NAME...]\n')
  process.exit(2)
}
reportRun(`npx tsx scripts/soak.ts ${process.argv.slice(2).join(' ')}`, undefined)
const target = { url }
const clients = Number(values.clients)
const models = values.model ?? [undefined]

/** Requests of all kinds: short and long, greedy and drawn. */
function makeRequests(): LoadRequest[] {
  const draw = random(1)
  const letters = (length: number) => Array.from({ length }, () => String.fromCharCode(97 + draw.integer(26))).join('')
  const starts = ['reverse(', 'sort(', 'The people of ', 'In the year ', '']
  return Array.from({ length: 48 }, (_, i) => ({
    ...(models[i % models.length] === undefined ? {} : { model: models[i % models.length] as string }),
    prompt: `${starts[draw.integer(starts.length)]}${letters(1 + draw.integer(i % 8 === 0 ? 300 : 12))}`,
    max_tokens: 4 + draw.integer(i % 5 === 0 ? 200 : 60),
    ...(i % 3 === 0 ? { temperature: 0.8, seed: i } : {}),
  }))
}

const requests = makeRequests()
const alone: LoadAnswer[] = []
for (const request of requests) alone.push(await streamCompletion(target, request))
const broken = alone.find(({ error }) => error !== undefined)
if (broken) throw new Error(`alone: ${broken.error}`)

const until = performance.now() + Number(values.seconds) * 1000
const answers: LoadAnswer[] = []
const differing: { request: LoadRequest; alone: string; among: string }[] = []
await Promise.all(
  Array.from({ length: clients }, async (_, client) => {
    const draw = random(2, client)
    while (performance.now() < until) {
      const i = draw.integer(requests.length)
      const answer = await streamCompletion(target, requests[i]!)
      answers.push(answer)
      const { text } = alone[i]!
      if (answer.error === undefined && answer.text !== text)
        differing.push({ request: requests[i]!, alone: text, among: answer.text })
    }
  }),
)
const { firstToken, perToken, ...figures } = summarize(answers)
const milliseconds = (seconds: object) =>
  Object.fromEntries(Object.entries(seconds).map(([name, value]) => [name, Number((value * 1000).toFixed(2))]))
process.stdout.write(
  `${JSON.stringify({
    clients,
    seconds: Number(values.seconds),
    ...{ requests: figures.requests, failed: figures.failed, rejected: figures.rejected, differing: differing.length },
    ...{ first_token_ms: milliseconds(firstToken), per_token_ms: milliseconds(perToken) },
    ...{ tokens: figures.tokens, tokens_per_forward: figures.tokensPerForward },
  })}\n`,
)
for (const difference of differing.slice(0, 5)) process.stderr.write(`${JSON.stringify(difference)}\n`)
const failed = answers.find(({ error }) => error !== undefined)
if (failed) process.stderr.write(`${failed.status}: ${failed.error}\n`)
if (differing.length > 0 || figures.completed < figures.requests) process.exitCode = 1
