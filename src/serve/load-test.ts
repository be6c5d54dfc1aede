// Load on a server, as its clients would put it: streams that are timed, arrivals at a rate, percentiles. Speaks the OpenAI
// API alone, so that other servers can be measured too.
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'

export interface LoadRequest {
  model?: string
  prompt: string
  max_tokens: number
  temperature?: number
  seed?: number
}

/** One streamed completion. Times are in seconds since it was sent. */
export interface LoadAnswer {
  /** HTTP status; 0 where there was no connection. */
  status: number
  /** Why there is no whole answer. */
  error: string | undefined
  text: string
  /** To the first text. */
  firstToken: number
  /** To the end of the answer. */
  total: number
  /** Completion tokens; without a count of the server's, pieces of text. */
  tokens: number
  /** Undefined where the server does not report it. */
  forwards: number | undefined
}

export interface Target {
  /** With or without /v1. */
  url: string
  apiKey?: string
  signal?: AbortSignal
}

const headersOf = ({ apiKey }: Target): Record<string, string> => ({
  'content-type': 'application/json',
  ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}),
})

const address = ({ url }: Target, path: string) => `${url.replace(/\/+$/, '').replace(/\/v1$/, '')}/v1/${path}`

/** Sends a completion and reads its stream. What goes wrong is part of the answer, except an abort. */
export async function streamCompletion(target: Target, request: LoadRequest): Promise<LoadAnswer> {
  const since = performance.now()
  const seconds = () => (performance.now() - since) / 1000
  const answer: LoadAnswer = {
    status: 0,
    error: undefined,
    text: '',
    firstToken: 0,
    total: 0,
    tokens: 0,
    forwards: undefined,
  }
  try {
    const response = await fetch(address(target, 'completions'), {
      method: 'POST',
      headers: headersOf(target),
      body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
      ...(target.signal ? { signal: target.signal } : {}),
    })
    answer.status = response.status
    if (!response.ok || !response.body) answer.error = (await response.text()).slice(0, 500)
    else {
      let ended = false
      for await (const data of events(response.body)) {
        if (data === '[DONE]') {
          ended = true
          continue
        }
        const { choices = [], usage, error } = JSON.parse(data) as StreamChunk
        if (error) answer.error = error.message
        const text = choices[0]?.text ?? ''
        if (text !== '' && answer.text === '') answer.firstToken = seconds()
        answer.text += text
        if (text !== '' && !usage) answer.tokens++
        if (usage) {
          answer.tokens = usage.completion_tokens
          answer.forwards = usage.forwards
        }
      }
      if (!ended) answer.error ??= 'the stream ended without [DONE]'
    }
  } catch (error) {
    target.signal?.throwIfAborted()
    answer.error = error instanceof Error ? String(error.cause ?? error.message) : String(error)
  }
  answer.total = seconds()
  // An answer without a text has its first token where it ends.
  if (answer.text === '') answer.firstToken = answer.total
  return answer
}

interface StreamChunk {
  choices?: { text?: string }[]
  usage?: { completion_tokens: number; forwards?: number } | null
  error?: { message: string }
}

async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = ''
  const decoder = new TextDecoder()
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true })
    const parts = rest.split('\n\n')
    rest = parts.pop()!
    for (const part of parts)
      for (const line of part.split('\n')) if (line.startsWith('data: ')) yield line.slice('data: '.length)
  }
}

export interface Percentiles {
  p50: number
  p95: number
  p99: number
}

/** By the nearest-rank method. NaN for no values. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

export interface LoadResult {
  model: string
  mode: string | undefined
  /** Requests per second that arrived. */
  rate: number
  requests: number
  /** Answers that came whole. */
  completed: number
  /** Turned away with 429. */
  rejected: number
  failed: number
  /** Seconds to the first text. */
  firstToken: Percentiles
  /** Seconds per token after the first text. */
  perToken: Percentiles
  /** Seconds for the whole answer. */
  total: Percentiles
  /** Completion tokens per second, over the time from the first request to the last answer. */
  tokensPerSecond: number
  tokensPerForward: number | undefined
}

/** Figures of some answers. */
export function summarize(answers: readonly LoadAnswer[]) {
  const whole = answers.filter(({ error }) => error === undefined)
  const tokens = whole.reduce((sum, answer) => sum + answer.tokens, 0)
  const forwards = whole.reduce((sum, answer) => sum + (answer.forwards ?? Number.NaN), 0)
  return {
    requests: answers.length,
    completed: whole.length,
    rejected: answers.filter(({ status }) => status === 429).length,
    failed: answers.filter(({ error, status }) => error !== undefined && status !== 429).length,
    firstToken: percentiles(whole.map(({ firstToken }) => firstToken)),
    perToken: percentiles(
      whole
        .filter(({ tokens }) => tokens > 1)
        .map(({ firstToken, total, tokens }) => (total - firstToken) / (tokens - 1)),
    ),
    total: percentiles(whole.map(({ total }) => total)),
    tokens,
    tokensPerForward: forwards > 0 ? tokens / forwards : undefined,
  }
}

export interface SweepOptions {
  target: Target
  /** Default: all that the server lists. */
  models?: readonly string[]
  /** Requests per second. */
  rates: readonly number[]
  /** Seconds in which requests arrive, for each rate. */
  seconds: number
  prompts: readonly string[]
  maxTokens: number
  /** Of the arrivals. Default 0. */
  seed?: number
  onResult?: (result: LoadResult) => void
}

/**
 * Measures each model at each rate, one after the other. Arrivals are a Poisson process: they do not wait for answers, so a
 * server that cannot keep up shows it.
 */
export async function sweep(options: SweepOptions): Promise<LoadResult[]> {
  const { target, rates, onResult } = options
  const listed = await listModels(target)
  const models = options.models ?? listed.map(({ id }) => id)
  const results: LoadResult[] = []
  for (const model of models) {
    const mode = listed.find(({ id }) => id === model)?.mode
    // Loads the model and fills what is made on first use.
    await streamCompletion(target, { model, prompt: options.prompts[0]!, max_tokens: 1 })
    for (const rate of rates) {
      const result = { model, mode, rate, ...(await atRate(model, rate, options)) }
      results.push(result)
      onResult?.(result)
    }
  }
  return results
}

async function atRate(model: string, rate: number, { target, seconds, prompts, maxTokens, seed = 0 }: SweepOptions) {
  const draw = random(seed, Math.round(rate * 1000))
  const arrivals: number[] = []
  for (let time = 0; ; ) {
    time -= Math.log(1 - draw.uniform()) / rate
    if (time >= seconds && arrivals.length > 0) break
    arrivals.push(time)
    if (time >= seconds) break
  }
  const since = performance.now()
  const answers = await Promise.all(
    arrivals.map(async (time, i) => {
      await new Promise((resolve) => setTimeout(resolve, time * 1000))
      target.signal?.throwIfAborted()
      return streamCompletion(target, { model, prompt: prompts[i % prompts.length]!, max_tokens: maxTokens })
    }),
  )
  const { tokens, ...figures } = summarize(answers)
  return { ...figures, tokensPerSecond: tokens / ((performance.now() - since) / 1000) }
}

async function listModels(target: Target): Promise<{ id: string; mode?: string }[]> {
  let response: Response
  try {
    response = await fetch(address(target, 'models'), { headers: headersOf(target) })
  } catch (error) {
    throw new UserError(
      `${target.url}: no server answers there (${error instanceof Error ? (error.cause ?? error.message) : error})`,
    )
  }
  if (!response.ok) throw new UserError(`${target.url}: GET /v1/models answered ${response.status}`)
  return ((await response.json()) as { data: { id: string; mode?: string }[] }).data
}
