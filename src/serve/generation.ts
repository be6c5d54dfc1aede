// Runs the sequences of one request: a place in the queue, the model's process, time limits, and what is reported on
// disconnect. Everything that a client sees of a generation passes through `runChoices`.
import { setMaxListeners } from 'node:events'
import { ApiError } from './errors.ts'
import type { Holding } from './holds.ts'
import type { Metrics } from './metrics.ts'
import type { ServedModel } from './models.ts'
import { childSpan, type TraceContext } from './trace.ts'
import { type Begun, notAnswering } from './worker/host.ts'
import type { GenerateEvent, GenerateJob, GenerateResult, ScoreJob, ScoreResult } from './worker/protocol.ts'

/** Tokens in whose multiples prompts share, so that nobody guesses another user's prompt bit by bit. */
const SHARED_STEP = 64

/** Bytes of events, about, that may wait for a client of a stream that does not read. */
const MOST_UNREAD = 4 << 20

export interface RunContext {
  /** Who the places are shared with fairly. */
  client: string
  /** Aborted when the client disconnects. */
  signal: AbortSignal
  /** Longest time that a sequence may be generated, in seconds. */
  seconds: number
  metrics: Metrics
  trace: TraceContext
  holding: Holding
  /** Whether events go to the client as they come; what is collected instead is held until it has been read. */
  streamed: boolean
}

/** What is reported of choice `index`: text as it becomes final, then its end. */
export type ChoiceEvent =
  | ({ index: number; kind: 'text' } & GenerateEvent)
  | ({ index: number; kind: 'end' } & GenerateResult)

/** Tokens and forwards of a request, in OpenAI's words where it has any. */
export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
  prompt_tokens_details: { cached_tokens: number }
  /** Forwards of all choices: each predicts every position of a block that is still masked. */
  forwards: number
  tokens_per_forward: number
}

/**
 * Generates one choice per job, all at the same time where there are places; events of different choices interleave.
 * Leaving the loop cancels what still runs. The first error ends all.
 */
export async function* runChoices(
  model: ServedModel,
  jobs: readonly GenerateJob[],
  { client, signal, seconds, metrics, trace, holding, streamed }: RunContext,
): AsyncGenerator<ChoiceEvent, void> {
  model.check()
  model.queue.admit(client, jobs.length)
  const leave = model.enter()
  const stop = new AbortController()
  // One per sequence: as many as there are.
  setMaxListeners(0, stop.signal)
  const abort = () => stop.abort(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  const since = performance.now()
  const labels = { model: model.name }
  const events: { event: ChoiceEvent; bytes: number }[] = []
  let unread = 0
  let open = jobs.length
  let failure: { error: unknown } | undefined
  let wake = () => {}
  let begun = false

  function hold(event: ChoiceEvent, bytes: number): void {
    events.push({ event, bytes })
    unread += bytes
    try {
      holding.add(bytes)
      if (streamed && unread > MOST_UNREAD) throw new ApiError(499, 'the client reads too slowly')
    } catch (error) {
      stop.abort(error)
    }
    wake()
  }

  const run = async (job: GenerateJob, index: number): Promise<void> => {
    const span = childSpan('generate', trace, { 'gen_ai.request.model': model.name, 'unmask.choice': index })
    const asked = performance.now()
    let release = () => {}
    let ended: Promise<void> | undefined
    let waited = 0
    let usage: Record<string, string | number> | undefined
    try {
      release = await model.queue.acquire(client, stop.signal)
      waited = performance.now() - asked
      const worker = await model.ready(stop.signal)
      const shared = { ...job, sharing: { group: client, step: SHARED_STEP } }
      const generation = generate(worker, shared, stop.signal, seconds, (event) => {
        if (event.text !== '' && !begun) {
          begun = true
          metrics.firstTokenSeconds.observe(labels, (performance.now() - since) / 1000)
        }
        hold({ index, kind: 'text', ...event }, bytesOf(event))
      })
      ended = generation.ended
      const result = await generation.result
      metrics.promptTokens.inc(labels, result.promptTokens)
      metrics.completionTokens.inc(labels, result.completionTokens)
      metrics.forwards.inc(labels, result.forwards)
      hold({ index, kind: 'end', ...result }, END_BYTES)
      usage = {
        'gen_ai.usage.input_tokens': result.promptTokens,
        'gen_ai.usage.output_tokens': result.completionTokens,
        'gen_ai.response.finish_reasons': result.finish,
        'unmask.forwards': result.forwards,
      }
    } finally {
      freeAfter(ended, release)
      span.end({ 'unmask.queue_ms': Math.round(waited), ...usage }, usage === undefined && !stop.signal.aborted)
    }
  }
  for (const [index, job] of jobs.entries())
    run(job, index)
      .catch((error) => {
        if (signal.aborted) metrics.cancelled.inc(labels)
        failure ??= { error }
        stop.abort(error)
      })
      .finally(() => {
        open--
        wake()
      })

  try {
    for (;;) {
      for (let next = events.shift(); next; next = events.shift()) {
        unread -= next.bytes
        if (streamed) holding.drop(next.bytes)
        yield next.event
      }
      if (failure) throw failure.error
      if (open === 0) return
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  } finally {
    stop.abort(new ApiError(499, 'the client disconnected'))
    signal.removeEventListener('abort', abort)
    leave()
  }
}

/** Bytes that the end of a choice takes in memory, about, and a token with its probability. */
const END_BYTES = 1024
const ENTRY_BYTES = 160

/** Bytes that an event takes in memory, about. */
function bytesOf({ text, logprobs = [], unmasked = [] }: GenerateEvent): number {
  const alternatives = logprobs.reduce((sum, { top }) => sum + 1 + top.length, 0)
  return 256 + 2 * text.length + ENTRY_BYTES * (alternatives + unmasked.length)
}

/** A place is free when the process no longer works at its text, or clients that leave would pile up work there. */
function freeAfter(ended: Promise<void> | undefined, release: () => void): void {
  if (ended) void ended.then(release)
  else release()
}

/** Scores prompts, each in a place of its own. */
export async function runScores(
  model: ServedModel,
  jobs: readonly ScoreJob[],
  { client, signal, seconds, holding }: RunContext,
): Promise<ScoreResult[]> {
  model.check()
  model.queue.admit(client, jobs.length)
  const leave = model.enter()
  const stop = AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000)])
  setMaxListeners(0, stop)
  try {
    return await Promise.all(
      jobs.map(async (job) => {
        const release = await model.queue.acquire(client, stop)
        let ended: Promise<void> | undefined
        try {
          const scoring = (await model.ready(stop)).score(job, stop)
          ended = scoring.ended
          const result = await scoring.result
          const entries = result.top.reduce((sum, top) => sum + 1 + top.length, result.tokens.length)
          holding.add(ENTRY_BYTES * entries)
          return result
        } finally {
          freeAfter(ended, release)
        }
      }),
    )
  } catch (error) {
    if (stop.aborted && !signal.aborted)
      throw new ApiError(429, `scoring took longer than ${seconds} s; send fewer prompts`, {
        code: 'timeout',
        retryAfter: 1,
      })
    throw error
  } finally {
    leave()
  }
}

/** One sequence. When its time is over, what there is counts as its answer, cut as by `max_tokens`. */
function generate(
  worker: Awaited<ReturnType<ServedModel['ready']>>,
  job: GenerateJob,
  signal: AbortSignal,
  seconds: number,
  onEvent: (event: GenerateEvent) => void,
): Begun<GenerateResult> {
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(), seconds * 1000)
  const abort = () => limit.abort(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  let begun = false
  let promptTokens = 0
  let completionTokens = 0
  let forwards = 0
  const { result, ended } = worker.generate(job, limit.signal, (event) => {
    begun = true
    if (event.promptTokens === undefined && event.text === '' && !event.logprobs && !event.unmasked) return
    promptTokens = event.promptTokens ?? promptTokens
    completionTokens = event.tokens ?? completionTokens
    forwards = event.forwards ?? forwards
    onEvent(event)
  })
  const inTime = result
    .catch((error): GenerateResult => {
      if (!limit.signal.aborted || signal.aborted) throw error
      // A process that answers at all says at once that it begins.
      if (!begun) throw notAnswering(seconds)
      return { finish: 'length', promptTokens, cachedTokens: 0, completionTokens, forwards }
    })
    .finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    })
  return { result: inTime, ended }
}

/** Sums the results of a request's choices. The prompt counts once per prompt, not per choice of it. */
export function usageOf(results: readonly GenerateResult[], choicesPerPrompt: number): Usage {
  const sum = (pick: (result: GenerateResult) => number) => results.reduce((total, result) => total + pick(result), 0)
  const firsts = results.filter((_, index) => index % choicesPerPrompt === 0)
  const prompt = firsts.reduce((total, result) => total + result.promptTokens, 0)
  const completion = sum((result) => result.completionTokens)
  const forwards = sum((result) => result.forwards)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: firsts.reduce((total, result) => total + result.cachedTokens, 0) },
    forwards,
    tokens_per_forward: forwards === 0 ? 0 : completion / forwards,
  }
}
