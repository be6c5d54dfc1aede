// A hostile client in a process of its own: what it sends by turns, without waiting for anybody. Started by overload.ts; says
// which kinds there are, then does what it is told until it is told to stop.
import { connect } from 'node:net'
import { type Random, random } from '../../src/core/random.ts'

interface Attack {
  url: string
  key: string
  signal: AbortSignal
  draw: Random
}

/** One round of an attack; as many run at a time as `copies` says, each again and again. */
interface Kind {
  copies: number
  round(attack: Attack): Promise<unknown>
}

const headersOf = ({ key }: Attack) => ({ 'content-type': 'application/json', authorization: `Bearer ${key}` })

async function post(attack: Attack, path: string, body: unknown): Promise<number> {
  const answer = await fetch(attack.url + path, {
    method: 'POST',
    headers: headersOf(attack),
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: attack.signal,
  })
  await answer.arrayBuffer()
  return answer.status
}

const constrained = (attack: Attack, schema: unknown, more: object = {}) =>
  post(attack, '/v1/chat/completions', {
    messages: [{ role: 'user', content: 'x' }],
    max_tokens: 300,
    response_format: { type: 'json_schema', json_schema: { name: 'x', schema } },
    ...more,
  })

/** No end of the text is written. */
const ENDLESS = { '256': -100, '258': -100 }
const endless = { prompt: 'the people of', max_tokens: 1900, logit_bias: ENDLESS }
const anyNumber = ({ draw }: Attack) => draw.integer(1e9)

/** Sends bytes on a connection of its own and reads nothing for so many seconds. */
const unread = ({ url, signal }: Attack, bytes: string, seconds: number): Promise<void> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname, () => socket.write(bytes))
    socket.pause()
    socket.on('error', () => {})
    const end = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve()
    }
    const timer = setTimeout(end, seconds * 1000)
    socket.on('close', end)
    signal.addEventListener('abort', end, { once: true })
  })

const raw = (attack: Attack, path: string, body: string, length = Buffer.byteLength(body)) =>
  `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer ${attack.key}\r\ncontent-length: ${length}\r\n\r\n${body}`

export const kinds: Readonly<Record<string, Kind>> = {
  'schemas of 45 kB': {
    copies: 8,
    round: (attack) =>
      constrained(attack, {
        allOf: Array.from({ length: 1700 }, (_, i) => ({ items: { minimum: anyNumber(attack) - i } })),
      }),
  },
  'small schemas that compile long': {
    copies: 8,
    round: (attack) => {
      const pattern = `^((a|b|ab)*c?){1,${900 + attack.draw.integer(100_000)}}$`
      return constrained(attack, { type: 'string', pattern, maxLength: 900 }, { n: 16 })
    },
  },
  'schemas with many ways to begin': {
    copies: 8,
    round: (attack) => {
      const pattern = `^(b|${'a?'.repeat(7000)}){1,${300 + attack.draw.integer(100_000)}}$`
      return constrained(attack, { type: 'string', pattern })
    },
  },
  'schemas whose texts are slow to follow': {
    copies: 8,
    round: (attack) => {
      const pattern = `^([ab]*a[ab]{${10 + attack.draw.integer(8)}}|x){20,${30 + attack.draw.integer(1000)}}$`
      return constrained(attack, { type: 'string', pattern }, { n: 4, temperature: 1 })
    },
  },
  'prompts of 1 MB': {
    copies: 8,
    round: (attack) => post(attack, '/v1/completions', { prompt: 'a b '.repeat(250_000), max_tokens: 1 }),
  },
  'prompts as long as allowed': {
    copies: 32,
    round: (attack) => {
      const prompt = `${anyNumber(attack)} ${'the people '.repeat(180)}`
      return post(attack, '/v1/completions', { prompt, max_tokens: 1 })
    },
  },
  'prompts of telephone numbers': {
    copies: 32,
    round: (attack) => post(attack, '/v1/completions', { prompt: '555-123-4567 '.repeat(75_000), max_tokens: 1 }),
  },
  'short prompts of telephone numbers': {
    copies: 32,
    round: (attack) => post(attack, '/v1/completions', { prompt: '555-123-4567 '.repeat(150), max_tokens: 1 }),
  },
  'bodies wrong in every place': {
    copies: 8,
    round: (attack) => post(attack, '/v1/chat/completions', `{"messages":[${'1,'.repeat(500_000)}1]}`),
  },
  'texts to tokenise': {
    copies: 32,
    round: async (attack) => {
      const text = `${anyNumber(attack)} ${'a b c '.repeat(10_000)}`
      await post(attack, '/tokenize', { prompt: text })
      await post(attack, '/detokenize', { tokens: Array.from({ length: 100_000 }, (_, i) => i % 250) })
    },
  },
  'long answers on 200 connections': { copies: 200, round: (attack) => post(attack, '/v1/completions', endless) },
  '128 answers at a time': {
    copies: 4,
    round: (attack) => post(attack, '/v1/completions', { ...endless, n: 128, temperature: 1 }),
  },
  'prompts to score': {
    copies: 8,
    round: (attack) => {
      const prompt = Array.from({ length: 16 }, () => `${anyNumber(attack)} ${'the people of '.repeat(150)}`)
      return post(attack, '/v1/completions', { prompt, max_tokens: 0, echo: true, logprobs: 5 })
    },
  },
  'requests that are left': {
    copies: 64,
    async round(attack) {
      const leave = AbortSignal.any([attack.signal, AbortSignal.timeout(1 + attack.draw.integer(50))])
      await post({ ...attack, signal: leave }, '/v1/completions', { ...endless, stream: true, n: 4 })
    },
  },
  'pipelined requests': {
    copies: 32,
    round: (attack) => unread(attack, raw(attack, '/v1/completions', JSON.stringify(endless)).repeat(20), 2),
  },
  'answers that nobody reads': {
    copies: 32,
    round: (attack) => {
      const body = { ...endless, n: 16, stream: true, logprobs: 5, unmask: { unmasking: true } }
      return unread(attack, raw(attack, '/v1/completions', JSON.stringify(body)), 20)
    },
  },
  'bodies that never end': {
    copies: 200,
    round: (attack) => unread(attack, raw(attack, '/v1/completions', '{"prompt":"', 1_000_000), 10),
  },
}

if (process.send) {
  let stop: AbortController | undefined
  const statuses = new Map<string, number>()
  process.on('message', async (message: { start: string; url: string; key: string; seed: number } | 'stop') => {
    if (message === 'stop') return stop?.abort()
    const { start, url, key, seed } = message
    stop = new AbortController()
    const { signal } = stop
    statuses.clear()
    const { copies, round } = kinds[start]!
    await Promise.all(
      Array.from({ length: copies }, async (_, copy) => {
        const attack = { url, key, signal, draw: random(seed, copy) }
        while (!signal.aborted) {
          const outcome = await round(attack).catch(() => 'broken off')
          // What is refused at once would otherwise only measure this client.
          if (outcome === 429) await new Promise((resolve) => setTimeout(resolve, 20))
          if (!signal.aborted || typeof outcome === 'number')
            statuses.set(String(outcome ?? 'unread'), (statuses.get(String(outcome ?? 'unread')) ?? 0) + 1)
        }
      }),
    )
    process.send!(Object.fromEntries(statuses))
  })
  process.on('disconnect', () => process.exit())
}
