// POST /v1/completions: continues texts, fills gaps (suffix), scores prompts (echo with logprobs).
import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import { readBody } from '../body.ts'
import type { Limits } from '../config.ts'
import { samplingOf } from '../decoding.ts'
import { badRequest } from '../errors.ts'
import { type ChoiceEvent, type RunContext, runChoices, runScores, type Usage, usageOf } from '../generation.ts'
import type { ServedModel } from '../models.ts'
import { judgeJobs, refuseAll } from '../safety.ts'
import { type CompletionRequest, completionRequest } from '../schemas.ts'
import { eventStream, type SentEvent } from '../sse.ts'
import type { GenerateJob, GenerateResult, Prompt, ScoreResult, TokenLogprob } from '../worker/protocol.ts'
import { finite } from './chat.ts'
import {
  askerOf,
  checkChoices,
  type Env,
  isSet,
  outputTokens,
  type RouteContext,
  runContext,
  startStream,
  stopOf,
} from './settings.ts'

/** OpenAI's default for this route. */
const MAX_TOKENS = 16

export const completionsRoute = (context: RouteContext) => async (c: Context<Env>) => {
  const { models, limits, log, safety } = context
  const body = await readBody(c, completionRequest, limits)
  const model = models.find(body.model)
  const prompts = promptsOf(body)
  const n = body.n ?? 1
  const echo = body.echo ?? false
  const maxTokens = outputTokens(body.max_tokens, MAX_TOKENS, limits, 'max_tokens')
  checkChoices(prompts.length * n, limits)
  if (maxTokens === 0 && !echo) throw badRequest('max_tokens: 0 needs echo', 'max_tokens')
  if (isSet(body.suffix) && echo) throw badRequest('suffix and echo cannot be combined', 'suffix')
  if (echo && body.stream) throw badRequest('echo cannot be streamed', 'stream')
  model.check()
  const worker = await model.ready(c.var.gone.signal)
  if (isSet(body.suffix) && !worker.info.infill)
    throw badRequest('this model cannot fill gaps: it writes from left to right', 'suffix')
  const asked = prompts.flatMap((prompt) =>
    Array.from(
      { length: n },
      (_, index): GenerateJob => ({
        prompt,
        promptParam: 'prompt',
        maxPromptTokens: limits.prompt_tokens,
        ...(isSet(body.suffix) ? { suffix: body.suffix } : {}),
        maxNewTokens: maxTokens,
        sampling: samplingOf(body, index),
        stop: stopOf(body.stop),
        unmasking: body.unmask?.unmasking ?? false,
        ...(isSet(body.logprobs) ? { logprobs: body.logprobs } : {}),
      }),
    ),
  )
  const head = {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    created: Math.floor(Date.now() / 1000),
    model: model.name,
  }
  const run = runContext(context, c.var, body.stream === true)
  const asker = askerOf(model, c.var)
  const { jobs, blocked } = await judgeJobs(safety, asked, {
    ...{ asker, signal: run.signal },
    detokenize: (ids) => worker.detokenize(ids, run.signal),
  })
  const generate = () => (blocked ? refuseAll(asked.length) : safety.answers(runChoices(model, jobs, run), jobs, asker))
  if (body.stream) {
    const chunks = streamChunks(generate(), head, body, n)
    return eventStream(await startStream(chunks, log), () => c.var.gone.abort())
  }
  const judged = jobs.flatMap(({ prompt }, index) => (index % n === 0 && prompt.kind !== 'revise' ? [prompt] : []))
  const scores = echo && !blocked ? await scorePrompts(model, judged, body, { limits, run }) : undefined
  const choices = asked.map(() => ({
    text: '',
    logprobs: [] as TokenLogprob[],
    unmasked: [] as unknown[],
    result: undefined as GenerateResult | undefined,
  }))
  if (maxTokens > 0 || blocked)
    for await (const event of generate()) {
      const choice = choices[event.index]!
      if (event.kind === 'end') choice.result = event
      else {
        choice.text += event.text
        choice.logprobs.push(...(event.logprobs ?? []))
        choice.unmasked.push(...(event.unmasked ?? []))
      }
    }
  const results = choices.map(({ result }, index): GenerateResult => {
    const promptTokens = scores?.[Math.floor(index / n)]?.ids.length ?? 0
    return result ?? { finish: 'length', promptTokens, cachedTokens: 0, completionTokens: 0, forwards: 0 }
  })
  return c.json({
    ...head,
    choices: choices.map(({ text, logprobs, unmasked }, index) => {
      const score = scores?.[Math.floor(index / n)]
      return {
        index,
        text: score ? score.text + text : text,
        logprobs: isSet(body.logprobs) ? completionLogprobs(logprobs, score) : null,
        finish_reason: results[index]!.finish,
        ...(body.unmask?.unmasking ? { unmask: { tokens: unmasked } } : {}),
      }
    }),
    usage: usageOf(results, n),
  })
}

function promptsOf({ prompt, parse_special }: CompletionRequest): Prompt[] {
  const special = parse_special ? 'tokens' : 'text'
  if (typeof prompt === 'string') return [{ kind: 'text', text: prompt, special }]
  if (typeof prompt[0] === 'number') return [{ kind: 'ids', ids: prompt as number[] }]
  return (prompt as (string | number[])[]).map((item) =>
    typeof item === 'string' ? { kind: 'text', text: item, special } : { kind: 'ids', ids: item },
  )
}

/** Scores prompts: their texts, and with `logprobs` the log-probability of each token. */
function scorePrompts(
  model: ServedModel,
  prompts: readonly Prompt[],
  { logprobs }: CompletionRequest,
  { limits, run }: { limits: Limits; run: RunContext },
): Promise<ScoreResult[]> {
  const job = {
    promptParam: 'prompt',
    maxPromptTokens: limits.prompt_tokens,
    ...(isSet(logprobs) ? { top: logprobs } : {}),
  }
  return runScores(
    model,
    prompts.map((prompt) => ({ ...job, prompt })),
    run,
  )
}

/** Log-probabilities as this older API gives them, those of an echoed prompt first. */
function completionLogprobs(entries: readonly TokenLogprob[], echoed?: ScoreResult) {
  const start = [...(echoed?.text ?? '')].length
  const offsets = entries.map(({ offset }) => start + offset)
  const top = (token: string, logprob: number, alternatives: readonly { token: string; logprob: number }[]) =>
    Object.fromEntries([...alternatives, { token, logprob }].map((entry) => [entry.token, finite(entry.logprob)]))
  const { tokens = [], logprobs = [], top: tops = [], offsets: echoedOffsets = [] } = echoed ?? {}
  return {
    tokens: [...tokens, ...entries.map(({ token }) => token)],
    token_logprobs: [
      ...logprobs.map((logprob) => (logprob === undefined ? null : finite(logprob))),
      ...entries.map(({ logprob }) => finite(logprob)),
    ],
    top_logprobs: [
      ...tokens.map((token, i) => (logprobs[i] === undefined ? null : top(token, logprobs[i], tops[i]!))),
      ...entries.map((entry) => top(entry.token, entry.logprob, entry.top)),
    ],
    text_offset: [...echoedOffsets, ...offsets],
  }
}

interface Head {
  id: string
  object: string
  created: number
  model: string
}

async function* streamChunks(
  events: AsyncIterable<ChoiceEvent> | Iterable<ChoiceEvent>,
  head: Head,
  body: CompletionRequest,
  n: number,
): AsyncGenerator<SentEvent, void> {
  const includeUsage = body.stream_options?.include_usage === true
  const chunk = (choices: unknown[], usage: Usage | null = null): SentEvent => ({
    data: JSON.stringify({ ...head, choices, ...(includeUsage ? { usage } : {}) }),
  })
  const results: GenerateResult[] = []
  for await (const event of events) {
    const { index } = event
    if (event.kind === 'end') {
      results[index] = event
      yield chunk([{ index, text: '', logprobs: null, finish_reason: event.finish }])
      continue
    }
    const { text, logprobs, unmasked, promptTokens } = event
    yield chunk([
      {
        index,
        text,
        logprobs: logprobs ? completionLogprobs(logprobs) : null,
        finish_reason: null,
        ...(unmasked ? { unmask: { tokens: unmasked } } : {}),
        // Where blocks begin is counted from the start of the prompt.
        ...(body.unmask?.unmasking && promptTokens !== undefined
          ? { unmask: { tokens: [], prompt_tokens: promptTokens } }
          : {}),
      },
    ])
  }
  if (includeUsage) yield chunk([], usageOf(results, n))
  yield { data: '[DONE]' }
}
