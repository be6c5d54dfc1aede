// Two builds of the server in turn: what a change costs requests that nobody attacks. `npx tsx scripts/serve-before.ts --before ROOT
// [--after ROOT] [--model models/tiny] [--rounds 10] [--requests 24] [--threads 1]`; ROOT is a checkout with its build (`npm run
// build`), by default this one. Each round sends the same requests to both, first to the one, then to the other, one at a time and by 8
// clients: plainly, with personal data replaced, and with the filter, too. Linux only.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { median, report, reportRun } from '../bench/measure.ts'
import { random } from '../src/core/random.ts'
import { type LoadAnswer, percentiles, streamCompletion } from '../src/serve/load-test.ts'
import { type AttackedServer, startAttacked } from './attacks/server.ts'

const { values } = parseArgs({
  options: {
    before: { type: 'string' },
    after: { type: 'string', default: '.' },
    model: { type: 'string', default: 'models/tiny' },
    rounds: { type: 'string', default: '10' },
    requests: { type: 'string', default: '24' },
    threads: { type: 'string', default: '1' },
  },
})
if (values.before === undefined) {
  process.stderr.write('usage: npx tsx scripts/serve-before.ts --before ROOT [--after ROOT]\n')
  process.exit(2)
}
const [rounds, requests, threads] = [values.rounds, values.requests, values.threads].map(Number) as [
  ...[number, number, number],
]
reportRun(`npx tsx scripts/serve-before.ts ${process.argv.slice(2).join(' ')}`, threads)

const CLIENTS = [1, 8]
const pii = { country: 'US' }
const settings = {
  plain: {},
  'personal data': { safety: { pii } },
  'filter and personal data': { safety: { filter: true, pii } },
}

/** Figures of one round. */
interface Round {
  answers: LoadAnswer[]
  tokensPerSecond: number
}

async function load({ url }: AttackedServer, clients: number, round: number): Promise<Round> {
  const draw = random(round, clients)
  const asked = Array.from({ length: requests * clients }, (_, i) => ({
    prompt: `${['The people of ', 'In the year ', 'reverse(stone)=', 'sort(dbcafe)='][i % 4]}${draw.integer(1e6)}`,
    max_tokens: 32,
  }))
  const answers: LoadAnswer[] = []
  const since = performance.now()
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (let next = asked.pop(); next; next = asked.pop()) answers.push(await streamCompletion({ url }, next))
    }),
  )
  const failed = answers.find(({ error }) => error !== undefined)
  if (failed) throw new Error(failed.error)
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0)
  return { answers, tokensPerSecond: tokens / ((performance.now() - since) / 1000) }
}

const firstTokens = (rounds: readonly Round[], which: 'p50' | 'p99') =>
  1000 * percentiles(rounds.flatMap(({ answers }) => answers.map(({ firstToken }) => firstToken)))[which]
const figures: Readonly<Record<string, { unit: string; of(rounds: readonly Round[]): number }>> = {
  'first token, p50': { unit: 'ms', of: (rounds) => firstTokens(rounds, 'p50') },
  'first token, p99': { unit: 'ms', of: (rounds) => firstTokens(rounds, 'p99') },
  speed: { unit: 'tokens/s', of: (rounds) => median(rounds.map(({ tokensPerSecond }) => tokensPerSecond)) },
}

/** Both in turn, the first of a round by turns, too. */
async function compare(servers: readonly AttackedServer[], name: string, clients: number): Promise<void> {
  const measured: Round[][] = [[], []]
  // What is made on first use is made before.
  for (const server of servers) await load(server, clients, rounds)
  for (let round = 0; round < rounds; round++)
    for (const which of round % 2 === 0 ? [0, 1] : [1, 0])
      measured[which]!.push(await load(servers[which]!, clients, round))
  const [before, after] = measured as [Round[], Round[]]
  for (const [what, { unit, of }] of Object.entries(figures))
    report({
      ...{ bench: 'serve-before', case: `${name}, ${clients} at a time, ${what}`, value: of(after), unit },
      ...{ peer: 'before', peerValue: of(before) },
    })
}

const folder = await mkdtemp(join(tmpdir(), 'unmask-before-'))
for (const [name, config] of Object.entries(settings)) {
  const file = join(folder, 'serve.json')
  await writeFile(file, JSON.stringify({ models: [{ name: 'm', path: values.model }], threads, ...config }))
  const roots = [values.before, values.after].map((root) => resolve(root))
  const servers: AttackedServer[] = []
  try {
    for (const root of roots) servers.push(await startAttacked(['--config', file], {}, root))
    for (const clients of CLIENTS) await compare(servers, name, clients)
  } finally {
    for (const server of servers) server.send('SIGTERM')
    await Promise.all(servers.map(({ ended }) => ended))
  }
}
await rm(folder, { recursive: true })
