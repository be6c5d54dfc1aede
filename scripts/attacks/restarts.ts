// Model processes that are killed and stopped, and reloads, at random under load: `npx tsx scripts/attacks/restarts.ts
// [--count 200] [--seed 1] [--lives 20] [--clients 6] [--model models/tiny]`. It starts servers of the build itself (`npm run
// build`), one after the other. Each is whole again within 10 s after whatever was done to it: /ready says so, and every model
// answers as before. What is not done to a model fails no request of it. SIGTERM ends the server and all of its processes within
// `shutdown_seconds`, whatever was done just before. Exit code 1 where that does not hold. Time that the server's processes
// waited for a processor is not the server's: it is measured, and taken off. Linux only.
import { parseArgs } from 'node:util'
import { print, reportRun, rounded } from '../../bench/measure.ts'
import { random } from '../../src/core/random.ts'
import { type LoadAnswer, streamCompletion } from '../../src/serve/load-test.ts'
import { type AttackedServer, isAlive, processorWait, startAttacked } from './server.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    lives: { type: 'string', default: '20' },
    clients: { type: 'string', default: '6' },
    model: { type: 'string', default: 'models/tiny' },
  },
})
const [count, seed, lives, clients] = [values.count, values.seed, values.lives, values.clients].map(Number) as [
  ...[number, number, number, number],
]
reportRun(`npx tsx scripts/attacks/restarts.ts ${process.argv.slice(2).join(' ')}`.trim(), 1)

const MODELS = ['first', 'second']
/** Longest time until a server is whole, in seconds. */
const WHOLE = 10
const SHUTDOWN = 3
/** Longest time of a request, in seconds: the server's limits, and a little. */
const LATE = 40
/** Longest time of an answer, in seconds. */
const SECONDS = 20
const env = {
  UNMASK_LIMITS_SECONDS: `${SECONDS}`,
  UNMASK_LIMITS_QUEUE_SECONDS: '15',
  UNMASK_SHUTDOWN_SECONDS: `${SHUTDOWN}`,
}

const PROMPTS = ['reverse(stone)=', 'sort(dbcafe)=', 'The people of ', 'In the year ']
const requestOf = (model: string, i: number) => ({ model, prompt: PROMPTS[i % PROMPTS.length]!, max_tokens: 48 })

/** What was done to which model, and when it was whole again. */
interface Deed {
  kind: 'kill' | 'stop' | 'reload'
  model: string | undefined
  from: number
  to: number
}

let faults = 0
const fault = (what: string, about: object) => {
  faults++
  print({ fault: what, ...about })
}
const counts = new Map<string, number>()
const add = (name: string) => void counts.set(name, (counts.get(name) ?? 0) + 1)
const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))
const now = () => performance.now() / 1000

const draw = random(seed)
const perLife = Math.ceil(count / lives)
let done = 0
let servers = 0
for (let life = 0; done < count; life++) {
  const server = await startAttacked([...MODELS.map((name) => `${name}=${values.model}`), '--threads', '1'], env)
  try {
    done += await live(server, life, Math.min(perLife, count - done))
  } finally {
    server.send('SIGKILL')
  }
  servers++
  process.stderr.write(`${done} of ${count}, ${faults} faults, ${Math.round(now())} s\n`)
}

for (const [what, count] of [...counts].sort()) print({ restarts: 'answers', what, count })
print({ restarts: 'end', deeds: done, seed, servers, faults })
process.exitCode = faults === 0 ? 0 : 1

/** One server from its start to its end. Returns what was done to it. */
async function live(server: AttackedServer, life: number, most: number): Promise<number> {
  const alone = new Map<string, string>()
  for (const model of MODELS)
    for (const i of PROMPTS.keys())
      alone.set(`${model} ${i}`, (await streamCompletion(server, requestOf(model, i))).text)
  const deeds: Deed[] = []
  let open = true

  async function ask(model: string, i: number): Promise<void> {
    const from = now()
    const pid = server.modelProcess(model)!
    // The server and the model's process work on an answer one after the other.
    const waits = () => processorWait(server.pid) + processorWait(pid)
    const before = waits()
    const answer = await streamCompletion(
      { url: server.url, signal: AbortSignal.timeout(LATE * 1000) },
      requestOf(model, i),
    )
      // A timeout is thrown, all else is part of the answer.
      .catch((): LoadAnswer | undefined => undefined)
    if (!open) return
    if (!answer) return fault('late', { seed, life, model, deeds })
    if (answer.error === undefined) {
      const text = alone.get(`${model} ${i % PROMPTS.length}`)!
      if (answer.text === text) return add('requests answered')
      const seconds = answer.total
      const waited = waits() - before
      // An answer ends when its time is over, as documented; a machine that is busy elsewhere is not the server's doing.
      if (seconds >= SECONDS && text.startsWith(answer.text) && seconds - waited < SECONDS / 2)
        return add('answers whose time was over, most of it waiting for a processor')
      return fault('other text', { seed, life, model, text, got: answer.text, seconds, waited })
    }
    const excused = deeds.some((deed) => deed.kind !== 'reload' && deed.model === model && deed.to >= from)
    if (excused && (answer.status === 503 || answer.status === 200)) return add('requests ended with their process')
    fault('failed', { seed, life, model, status: answer.status, error: answer.error, deeds: deeds.slice(-3) })
  }

  const load = Array.from({ length: clients }, async (_, client) => {
    const own = random(seed, life, client)
    while (open) {
      await ask(MODELS[own.integer(MODELS.length)]!, own.integer(PROMPTS.length))
      await sleep(own.uniform() * 0.2)
    }
  })

  for (let i = 0; i < most; i++) {
    await sleep(draw.uniform() * 3)
    const model = MODELS[draw.integer(MODELS.length)]!
    const kind = (['kill', 'stop', 'reload'] as const)[draw.integer(3)]!
    const pid = server.modelProcess(model)!
    const deed: Deed = { kind, model: kind === 'reload' ? undefined : model, from: now(), to: Number.POSITIVE_INFINITY }
    deeds.push(deed)
    const before = new Map([server.pid, ...server.children()].map((id) => [id, processorWait(id)]))
    if (kind === 'reload') server.send('SIGHUP')
    else process.kill(pid, kind === 'kill' ? 'SIGKILL' : 'SIGSTOP')
    // The last of a server is not waited for: it ends in the middle of it.
    if (i === most - 1) break
    await whole(server, alone, kind === 'reload' ? [] : [pid])
    deed.to = now()
    const wall = deed.to - deed.from
    // The server and a process that it starts work one after the other; processes beside each other.
    const waitOf = (id: number) => processorWait(id) - (before.get(id) ?? 0)
    const started = kind === 'reload' ? server.children() : [server.modelProcess(model)!]
    const waited = waitOf(server.pid) + Math.max(...started.map(waitOf))
    const own = Math.max(0, wall - waited)
    print({ restarts: 'deed', kind, seconds: rounded(wall), own: rounded(own) })
    if (own > WHOLE) fault('not whole in time', { seed, life, kind, wall, waited, log: server.log.slice(-6) })
  }
  await sleep(draw.uniform() * 2)
  await end(server, life, () => {
    open = false
  })
  await Promise.all(load)
  return most
}

/** Waits until all models answer as before, /ready says so, and the processes named are gone. */
async function whole(
  server: AttackedServer,
  alone: ReadonlyMap<string, string>,
  gone: readonly number[],
): Promise<void> {
  const isWhole = async () => {
    if (gone.some(isAlive)) return false
    if (!(await fetch(`${server.url}/ready`)).ok) return false
    const texts = await Promise.all(
      MODELS.map(async (model) => (await streamCompletion(server, requestOf(model, 0))).text),
    )
    return texts.every((text, i) => text === alone.get(`${MODELS[i]} 0`))
  }
  while (!(await isWhole())) await sleep(0.05)
}

/** SIGTERM in the middle of long answers: the server and all that it started is gone in time. */
async function end(server: AttackedServer, life: number, closing: () => void): Promise<void> {
  const long = { prompt: 'the people of', max_tokens: 1900, logit_bias: { 256: -100, 258: -100 } }
  const asked = MODELS.map((model) => streamCompletion(server, { model, ...long }))
  await sleep(0.2)
  closing()
  const processes = [server.pid, ...server.children()]
  const [before, from] = [processorWait(server.pid), now()]
  server.send('SIGTERM')
  let waited = 0
  while (processes.some(isAlive)) {
    waited = Math.max(waited, processorWait(server.pid) - before)
    for (const pid of server.children()) if (!processes.includes(pid)) processes.push(pid)
    // What is left at its end is seconds of the processor.
    if (now() - from - waited > SHUTDOWN + 3) {
      fault('runs on after SIGTERM', { seed, life, left: processes.filter(isAlive), log: server.log.slice(-6) })
      for (const pid of processes.filter(isAlive)) process.kill(pid, 'SIGKILL')
      break
    }
    await sleep(0.05)
  }
  print({ restarts: 'stopped', seconds: rounded(now() - from) })
  const how = await server.ended
  if (how !== 0) fault('ended otherwise', { seed, life, how, log: server.log.slice(-6) })
  await Promise.all(asked)
}
