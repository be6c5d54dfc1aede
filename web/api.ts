// The server as the page sees it: models, and generations as they stream. Knows no page.
import type { DecodingMode } from '../src/decode/settings.ts'
import { createRecording, type Recording, record, type TokenEvent } from './recording.ts'

export interface ModelInfo {
  id: string
  /** Unknown until it is loaded. */
  mode?: DecodingMode
  block_size?: number
  max_model_len?: number
  /** It has a chat template. */
  chat?: boolean
  state: string
}

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  forwards: number
  tokens_per_forward: number
}

/** What the server complained about, or why it was not reached (status 0). */
export class ApiFailure extends Error {
  override name = 'ApiFailure'
  readonly status: number
  readonly param: string | undefined
  readonly retryAfter: number | undefined

  constructor(status: number, message: string, { param, retryAfter }: { param?: string; retryAfter?: number } = {}) {
    super(message)
    this.status = status
    this.param = param
    this.retryAfter = retryAfter
  }
}

export type Path = '/v1/chat/completions' | '/v1/completions' | '/v1/infill' | '/v1/rewrite'

/** A generation while it runs and after. */
export interface Run {
  text: string
  recording: Recording
  usage: Usage | undefined
  finish: string | undefined
  /** From the request to the first token and to the end, as this page saw it. */
  firstSeconds: number | undefined
  seconds: number
}

export interface RunOptions {
  path: Path
  body: Record<string, unknown>
  /** Most tokens that may come, and the size of a block, where there are blocks. */
  most: number
  blockSize?: number | undefined
  signal: AbortSignal
  onUpdate(run: Run): void
}

export interface Client {
  models(): Promise<ModelInfo[]>
  countTokens(model: string, text: string): Promise<number>
  /** Resolves at the end. Rejects with ApiFailure, or the signal's reason. */
  run(options: RunOptions): Promise<Run>
}

interface Unmask {
  tokens?: TokenEvent[]
  layout?: Recording['layout']
  prompt_tokens?: number
}

/** A part of an answer, as routes stream it. */
export interface Chunk {
  text?: string
  unmask?: Unmask
  choices?: { text?: string; delta?: { content?: string }; unmask?: Unmask; finish_reason?: string | null }[]
  usage?: Usage | null
  error?: { message: string; param: string | null }
}

/** `key` is asked for each request, and kept nowhere. */
export function createClient(key: () => string): Client {
  async function ask(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { ...(init.body ? { 'content-type': 'application/json' } : {}), ...authorization(key()) }
    let response: Response
    try {
      response = await fetch(path, { ...init, headers, credentials: 'omit', redirect: 'error' })
    } catch (error) {
      if (init.signal?.aborted) throw init.signal.reason
      throw new ApiFailure(0, `The server cannot be reached (${error instanceof Error ? error.message : error}).`)
    }
    if (!response.ok) throw await failureOf(response)
    return response
  }
  const post = (path: string, body: unknown, signal?: AbortSignal) =>
    ask(path, { method: 'POST', body: JSON.stringify(body), ...(signal ? { signal } : {}) })

  return {
    async models() {
      const { data } = (await (await ask('/v1/models')).json()) as { data: ModelInfo[] }
      return data
    },
    async countTokens(model, prompt) {
      const response = await post('/tokenize', { model, prompt, add_special_tokens: false })
      return ((await response.json()) as { count: number }).count
    },
    async run({ path, body, most, blockSize, signal, onUpdate }) {
      const { run, add, end } = follow(most, blockSize)
      const unmask = { ...(body.unmask as object | undefined), unmasking: true }
      const request = { ...body, unmask, stream: true, stream_options: { include_usage: true } }
      const response = await post(path, request, signal)
      try {
        for await (const data of events(response)) {
          if (data === '[DONE]') break
          const chunk = JSON.parse(data) as Chunk
          if (chunk.error)
            throw new ApiFailure(500, chunk.error.message, chunk.error.param ? { param: chunk.error.param } : {})
          add(chunk)
          onUpdate(run)
        }
      } catch (error) {
        if (signal.aborted) throw signal.reason
        if (error instanceof ApiFailure) throw error
        throw new ApiFailure(0, 'The answer was cut off: the connection to the server was lost.')
      }
      return end()
    },
  }
}

/** A run that begins now, and what adds to it. */
export function follow(most: number, blockSize?: number) {
  const since = performance.now()
  const seconds = () => (performance.now() - since) / 1000
  const run: Run = {
    ...{ text: '', recording: createRecording(most, blockSize), usage: undefined, finish: undefined },
    ...{ firstSeconds: undefined, seconds: 0 },
  }
  return {
    run,
    add(chunk: Chunk): void {
      take(run, chunk, seconds)
      run.seconds = seconds()
    },
    end(): Run {
      run.seconds = seconds()
      // What was decided behind the end is no part of the answer.
      if (run.usage && !run.recording.layout) run.recording.most = run.usage.completion_tokens
      return run
    },
  }
}

function take(run: Run, chunk: Chunk, seconds: () => number): void {
  const choice = chunk.choices?.[0]
  const { tokens = [], layout, prompt_tokens } = choice?.unmask ?? chunk.unmask ?? {}
  const text = choice?.delta?.content ?? choice?.text ?? chunk.text ?? ''
  run.text += text
  if (layout) {
    run.recording.layout = layout
    run.recording.most = layout.length
  }
  if (prompt_tokens !== undefined) run.recording.promptTokens = prompt_tokens
  record(run.recording, tokens)
  if (run.firstSeconds === undefined && (text !== '' || tokens.length > 0)) run.firstSeconds = seconds()
  run.finish = choice?.finish_reason ?? run.finish
  run.usage = chunk.usage ?? run.usage
}

const authorization = (key: string): Record<string, string> => (key === '' ? {} : { authorization: `Bearer ${key}` })

async function failureOf(response: Response): Promise<ApiFailure> {
  const wait = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retry = Number.isFinite(wait) ? { retryAfter: wait } : {}
  try {
    const { error } = (await response.json()) as { error: { message: string; param: string | null } }
    return new ApiFailure(response.status, error.message, { ...(error.param ? { param: error.param } : {}), ...retry })
  } catch {
    return new ApiFailure(response.status, `The server answered ${response.status} ${response.statusText}.`, retry)
  }
}

/** The data of server-sent events. */
export async function* events(response: Pick<Response, 'body'>): AsyncGenerator<string, void> {
  if (!response.body) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      rest += value
      const whole = rest.split('\n\n')
      rest = whole.pop() ?? ''
      for (const event of whole) {
        const data = event
          .split('\n')
          .filter((line) => line.startsWith('data:'))
          .map((line) => line.slice(5).replace(/^ /, ''))
        if (data.length > 0) yield data.join('\n')
      }
    }
  } finally {
    await reader.cancel()
  }
}
