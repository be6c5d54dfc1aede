// 32 clients, of which one is hostile by turns: `npx tsx scripts/attacks/overload.ts [--seconds 600] [--clients 32] [--seed 1]
// [--rounds 2] [--kind NAME[,NAME...]] [--model models/tiny]`. It starts a server of the build itself (`npm run build`), with a
// key per client. Every kind of attack (hostile.ts) has a turn, between turns in which the hostile client rests. Measured are
// the others: their time to the first token with and without it, errors, answers that differ from those of the same request
// alone, and the server's memory. Exit code 1 where a request of the others fails or differs, or memory has grown from the
// first round of all kinds to the last. Linux only.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { print, reportRun, rounded } from '../../bench/measure.ts'
import { random } from '../../src/core/random.ts'
import { hashKey } from '../../src/serve/auth.ts'
import { type LoadRequest, percentiles, streamCompletion } from '../../src/serve/load-test.ts'
import { kinds } from './hostile.ts'
import { residentBytes, startAttacked } from './server.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    clients: { type: 'string', default: '32' },
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '2' },
    kind: { type: 'string' },
    model: { type: 'string', default: 'models/tiny' },
  },
})
const [seconds, clients, seed] = [Number(values.seconds), Number(values.clients), Number(values.seed)]
const rounds = Number(values.rounds)
const turns = values.kind === undefined ? Object.keys(kinds) : values.kind.split(',')
if (!turns.every((kind) => kind in kinds)) {
  process.stderr.write(`--kind are some of: ${Object.keys(kinds).join(', ')}\n`)
  process.exit(2)
}
/** Goal of the others' p99 with the hostile client, in times of that without. It says how good a server is, not whether it works. */
const GOAL = 3
/** Most memory in the last round, in times of the most in the first. */
const MOST_GROWTH = 1.25
/** Rest after a turn that still counts as it: what it has left behind is done by then. In shares of a turn. */
const AFTERMATH = 0.3
/** Mean pause of a client between two requests, in seconds. */
const PAUSE = 2

reportRun(`npx tsx scripts/attacks/overload.ts ${process.argv.slice(2).join(' ')}`.trim(), 1)
const folder = await mkdtemp(join(tmpdir(), 'unmask-overload-'))
const keys = ['hostile', ...Array.from({ length: clients - 1 }, (_, i) => `client-${i}`)]
await writeFile(
  join(folder, 'serve.json'),
  JSON.stringify({
    models: [{ name: 'm', path: values.model }],
    threads: 1,
    api_keys: keys.map((name) => ({ name, sha256: hashKey(name) })),
    safety: { filter: true, pii: { country: 'US' } },
  }),
)
const server = await startAttacked(['--config', join(folder, 'serve.json')], {})
const hostile = fork(fileURLToPath(new URL('./hostile.ts', import.meta.url)), [], { execArgv: ['--import', 'tsx'] })

const texts = ['reverse(stone)=', 'sort(dbcafe)=', 'The people of ', 'In the year ', 'add(12,30)=', 'count(banana,a)=']
const requests: LoadRequest[] = texts.flatMap((prompt, i) => [
  { prompt, max_tokens: 8 + 4 * i },
  { prompt, max_tokens: 16, temperature: 0.8, seed: i },
])
const target = (client: number) => ({ url: server.url, apiKey: `client-${client}` })
const alone: string[] = []
for (const request of requests) {
  const { text, error } = await streamCompletion(target(0), request)
  if (error !== undefined) throw new Error(`alone: ${error}`)
  alone.push(text)
}

let faults = 0
let open = true
let turn: string | undefined
/** Seconds to the first token by the kind of the attack beside it; '' for none. */
const waits = new Map<string, number[]>([['', []]])
const fault = (what: string, about: object) => {
  faults++
  print({ fault: what, turn: turn ?? 'rest', ...about })
}

async function client(number: number): Promise<void> {
  const draw = random(seed, number)
  while (open) {
    await new Promise((resolve) => setTimeout(resolve, draw.uniform() * 2 * PAUSE * 1000))
    const i = draw.integer(requests.length)
    const began = turn
    const answer = await streamCompletion(target(number), requests[i]!)
    if (answer.error !== undefined) fault('failed', { status: answer.status, error: answer.error })
    else if (answer.text !== alone[i]) fault('other text', { text: alone[i], got: answer.text })
    if (answer.error !== undefined) continue
    // What a turn has met at all is its own.
    const kind = began ?? turn ?? ''
    const list = waits.get(kind) ?? []
    list.push(answer.firstToken)
    waits.set(kind, list)
  }
}

const since = performance.now()
const memory: { seconds: number; server_mib: number; models_mib: number; turn: string }[] = []
const sample = () => {
  const mib = (pids: readonly number[]) => rounded(residentBytes(pids) / 2 ** 20)
  memory.push({
    seconds: Math.round((performance.now() - since) / 1000),
    ...{ server_mib: mib([server.pid]), models_mib: mib(server.children()), turn: turn ?? 'rest' },
  })
}
const sampling = setInterval(sample, Math.max(1, seconds / 120) * 1000)

const others = Array.from({ length: clients - 1 }, (_, number) => client(number))
const pass = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const length = (seconds * 1000) / (2 * rounds * turns.length)
const told = new Map<string, Record<string, number>>()
/** Where in `memory` each round ends. */
const ends: number[] = []
for (let round = 0; round < rounds; round++) {
  for (const [i, kind] of turns.entries()) {
    await pass(length * (1 - AFTERMATH))
    turn = kind
    hostile.send({ start: kind, url: server.url, key: 'hostile', seed: seed + round * turns.length + i })
    await pass(length)
    const answers = once(hostile, 'message')
    hostile.send('stop')
    const counts = told.get(kind) ?? {}
    for (const [outcome, count] of Object.entries((await answers)[0] as Record<string, number>))
      counts[outcome] = (counts[outcome] ?? 0) + count
    told.set(kind, counts)
    await pass(length * AFTERMATH)
    turn = undefined
  }
  sample()
  ends.push(memory.length)
}
clearInterval(sampling)
open = false
await Promise.all(others)
hostile.disconnect()
server.send('SIGTERM')
await server.ended
await rm(folder, { recursive: true })

const ms = (list: readonly number[]) => {
  const { p50, p95, p99 } = percentiles(list.map((value) => value * 1000))
  return { requests: list.length, p50_ms: rounded(p50), p95_ms: rounded(p95), p99_ms: rounded(p99) }
}
const rest = waits.get('')!
const beside = [...waits].filter(([kind]) => kind !== '').flatMap(([, list]) => list)
const times = percentiles(beside).p99 / percentiles(rest).p99
for (const line of server.log) if (Number(line.level) >= 40) print({ overload: 'log', ...line })
for (const line of memory) print({ overload: 'memory', ...line })
for (const [kind, answers] of told) print({ overload: 'turn', kind, ...ms(waits.get(kind) ?? []), answers })
print({ overload: 'rest', ...ms(rest) })
print({ overload: 'all turns', ...ms(beside), times: rounded(times), goal: GOAL })
const most = (lines: typeof memory) => Math.max(...lines.map(({ server_mib, models_mib }) => server_mib + models_mib))
const growth = most(memory.slice(ends.at(-2) ?? 0)) / most(memory.slice(0, ends[0]))
print({ overload: 'end', clients, seconds, rounds, faults, growth: rounded(growth) })
if (faults > 0 || growth > MOST_GROWTH) process.exitCode = 1
