// POST /v1/chat/completions, and what /v1/responses shares with it: a chat becomes jobs, their events become answers.
import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import type { ChatMessage, Tool } from '../../tokenizer/types.ts'
import { readBody } from '../body.ts'
import { type DecodingFields, samplingOf } from '../decoding.ts'
import { badRequest } from '../errors.ts'
import { type ChoiceEvent, type RunContext, runChoices, type Usage, usageOf } from '../generation.ts'
import { fromMessages } from '../messages.ts'
import type { ServedModel } from '../models.ts'
import { type Asker, judgeJobs, REFUSAL, refuseAll, type Safety } from '../safety.ts'
import { type ChatRequest, chatRequest } from '../schemas.ts'
import { eventStream, type SentEvent } from '../sse.ts'
import { createToolFilter, type ToolCall } from '../tools.ts'
import type { Alternative, GenerateJob, GenerateResult, TokenLogprob, UnmaskedToken } from '../worker/protocol.ts'
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

/** A chat to answer, whichever API it came through. `params` are the names of the fields in it. */
export interface Chat {
  messages: ChatMessage[]
  tools: Tool[]
  toolChoice: 'none' | 'auto' | 'required' | { name: string }
  parallelToolCalls: boolean
  format: { type: 'text' | 'json_object' } | { type: 'json_schema'; schema: Record<string, unknown> }
  maxTokens: number
  n: number
  stop: string[]
  logprobs: number | undefined
  sampling: DecodingFields
  params: { messages: string; format: string; tools: string; toolChoice: string }
}

/** What happens to a choice of a chat. */
export type ChatEvent =
  | { kind: 'begin'; index: number; promptTokens: number }
  | { kind: 'text'; index: number; text: string; logprobs?: TokenLogprob[]; unmasked?: UnmaskedToken[] }
  | { kind: 'calls'; index: number; calls: ToolCall[] }
  /** Instead of an answer: the prompt was not let through. */
  | { kind: 'refusal'; index: number; text: string }
  | { kind: 'end'; index: number; finish: GenerateResult['finish'] | 'tool_calls'; result: GenerateResult }

/** Answers a chat. Throws ApiError before the first event where the model cannot. */
export async function* answerChat(
  model: ServedModel,
  chat: Chat,
  { limits, run, safety, asker }: { limits: RouteContext['limits']; run: RunContext; safety: Safety; asker: Asker },
): AsyncGenerator<ChatEvent, void> {
  checkChoices(chat.n, limits)
  model.check()
  const worker = await model.ready(run.signal)
  const { info } = worker
  if (!info.chat && !info.plainPrompts)
    throw badRequest('this model has no chat template; use /v1/completions', chat.params.messages)
  const tools = chat.toolChoice === 'none' ? [] : chat.tools
  if (tools.length > 0 && !info.tools) throw badRequest("this model's chat template knows no tools", chat.params.tools)
  const constraint = constraintOf(chat, tools)
  const forced = isForced(chat)
  const job = (index: number): GenerateJob => ({
    prompt: {
      kind: 'chat',
      messages: chat.messages,
      ...(tools.length > 0 ? { tools } : {}),
      forced,
    },
    promptParam: chat.params.messages,
    maxPromptTokens: limits.prompt_tokens,
    maxNewTokens: chat.maxTokens,
    sampling: samplingOf(chat.sampling, index),
    stop: chat.stop,
    unmasking: chat.sampling.unmask?.unmasking ?? false,
    constraint,
    logprobs: chat.logprobs,
  })
  const names = new Set(tools.map((tool) => tool.function.name))
  const filters = Array.from({ length: chat.n }, () => (names.size > 0 ? createToolFilter(names, forced) : undefined))
  const asked = Array.from({ length: chat.n }, (_, index) => job(index))
  const { jobs, blocked } = await judgeJobs(safety, asked, {
    ...{ asker, signal: run.signal },
    detokenize: (ids) => worker.detokenize(ids, run.signal),
  })
  const events = blocked ? refuseAll(chat.n) : safety.answers(runChoices(model, jobs, run), jobs, asker)
  for await (const event of events)
    for (const shown of chatEvents(event, filters[event.index], chat.parallelToolCalls)) {
      if (shown.kind !== 'calls') {
        yield shown
        continue
      }
      const { index } = shown
      const calls: ToolCall[] = []
      for (const call of shown.calls) {
        const { text, blocked } = await safety.call(call.arguments, asker, run.signal)
        if (blocked) break
        calls.push({ ...call, arguments: text })
      }
      if (calls.length > 0) yield { kind: 'calls', index, calls }
      if (calls.length === shown.calls.length) continue
      yield { kind: 'end', index, finish: 'content_filter', result: event as GenerateResult }
      break
    }
}

const isForced = ({ toolChoice }: Chat): boolean => typeof toolChoice === 'object' || toolChoice === 'required'

/** What an answer must match: the format that was asked for, or a call where one is forced. */
function constraintOf({ format, params, toolChoice }: Chat, tools: readonly Tool[]): GenerateJob['constraint'] {
  if (typeof toolChoice === 'object' || toolChoice === 'required') {
    const offered = tools.filter(({ function: { name } }) => typeof toolChoice === 'string' || toolChoice.name === name)
    if (offered.length === 0) throw badRequest('there is no such tool among tools', params.toolChoice)
    const calls = offered.map(({ function: { name, parameters = { type: 'object' } } }) => ({
      type: 'object',
      properties: { name: { const: name }, arguments: parameters },
      required: ['name', 'arguments'],
      additionalProperties: false,
    }))
    return {
      source: { type: 'json_schema', schema: calls.length === 1 ? calls[0] : { anyOf: calls } },
      param: params.tools,
    }
  }
  if (format.type === 'json_schema')
    return { source: { type: 'json_schema', schema: format.schema }, param: params.format }
  return format.type === 'json_object' ? { source: { type: 'json_object' }, param: params.format } : undefined
}

function* chatEvents(
  event: ChoiceEvent,
  filter: ReturnType<typeof createToolFilter> | undefined,
  parallel: boolean,
): Generator<ChatEvent> {
  const { index } = event
  if (event.kind === 'text') {
    if (event.promptTokens !== undefined) yield { kind: 'begin', index, promptTokens: event.promptTokens }
    const { logprobs, unmasked } = event
    const text = filter ? filter.push(event.text) : event.text
    if (text !== '' || logprobs?.length || unmasked) yield { kind: 'text', index, text, logprobs, unmasked }
    return
  }
  const { kind: _, index: __, ...result } = event
  const rest = filter?.end()
  if (rest && rest.text !== '') yield { kind: 'text', index, text: rest.text }
  const calls = parallel ? rest?.calls : rest?.calls.slice(0, 1)
  if (calls && calls.length > 0) {
    yield { kind: 'calls', index, calls }
    yield { kind: 'end', index, finish: 'tool_calls', result }
    return
  }
  if (result.finish === 'content_filter' && result.promptTokens === 0) yield { kind: 'refusal', index, text: REFUSAL }
  yield { kind: 'end', index, finish: result.finish, result }
}

export const chatRoute = (context: RouteContext) => async (c: Context<Env>) => {
  const { models, limits, log, safety } = context
  const body = await readBody(c, chatRequest, limits)
  const model = models.find(body.model)
  const run = runContext(context, c.var, body.stream === true)
  const events = answerChat(model, toChat(body, context), { limits, run, safety, asker: askerOf(model, c.var) })
  const head = {
    id: `chatcmpl-${randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: model.name,
  }
  if (body.stream) {
    const chunks = streamChunks(events, head, body)
    return eventStream(await startStream(chunks, log), () => c.var.gone.abort())
  }
  return c.json(await completion(events, head, body))
}

function toChat(body: ChatRequest, { limits }: RouteContext): Chat {
  if (isSet(body.top_logprobs) && body.logprobs !== true)
    throw badRequest('top_logprobs needs logprobs: true', 'top_logprobs')
  const asked = body.max_completion_tokens ?? body.max_tokens
  const field = isSet(body.max_completion_tokens) ? 'max_completion_tokens' : 'max_tokens'
  const { response_format: format, tool_choice: choice } = body
  return {
    messages: fromMessages(body.messages),
    tools: (body.tools ?? []).map(({ function: { name, description, parameters } }) => ({
      type: 'function',
      function: { name, ...(isSet(description) ? { description } : {}), ...(parameters ? { parameters } : {}) },
    })),
    toolChoice: typeof choice === 'object' && choice !== null ? { name: choice.function.name } : (choice ?? 'auto'),
    parallelToolCalls: body.parallel_tool_calls ?? true,
    format:
      format?.type === 'json_schema'
        ? { type: 'json_schema', schema: format.json_schema.schema ?? {} }
        : { type: format?.type ?? 'text' },
    maxTokens: outputTokens(asked, limits.output_tokens, limits, field),
    n: body.n ?? 1,
    stop: stopOf(body.stop),
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
    sampling: body,
    params: { messages: 'messages', format: 'response_format', tools: 'tools', toolChoice: 'tool_choice' },
  }
}

interface Head {
  id: string
  created: number
  model: string
}

const toCalls = (calls: readonly ToolCall[]) =>
  calls.map((call) => ({ id: `call_${randomUUID().replaceAll('-', '')}`, type: 'function' as const, function: call }))

/** Log-probabilities as OpenAI's chat gives them: `bytes` in a row are those of the text, null for special tokens. */
function logprobContent(entries: readonly TokenLogprob[]) {
  const entry = ({ token, logprob, bytes }: Alternative) => ({
    token,
    logprob: finite(logprob),
    bytes: bytes ? [...bytes] : null,
  })
  return entries.map((item) => ({ ...entry(item), top_logprobs: item.top.map(entry) }))
}

/** JSON has no infinity; OpenAI writes -9999 for a probability of 0. */
export const finite = (logprob: number): number => Math.max(logprob, -9999)

/** The whole answer. */
async function completion(events: AsyncGenerator<ChatEvent, void>, { id, created, model }: Head, body: ChatRequest) {
  const choices = Array.from({ length: body.n ?? 1 }, () => ({
    text: '',
    logprobs: [] as TokenLogprob[],
    unmasked: [] as UnmaskedToken[],
    calls: [] as ToolCall[],
    refusal: null as string | null,
    finish: 'stop' as string,
    result: undefined as GenerateResult | undefined,
  }))
  for await (const event of events) {
    const choice = choices[event.index]!
    if (event.kind === 'text') {
      choice.text += event.text
      choice.logprobs.push(...(event.logprobs ?? []))
      choice.unmasked.push(...(event.unmasked ?? []))
    } else if (event.kind === 'calls') choice.calls = event.calls
    else if (event.kind === 'refusal') choice.refusal = event.text
    else if (event.kind === 'end') {
      choice.finish = event.finish
      choice.result = event.result
    }
  }
  const results = choices.map(({ result }) => result!)
  return {
    id,
    object: 'chat.completion',
    created,
    model,
    choices: choices.map(({ text, logprobs, unmasked, calls, refusal, finish }, index) => ({
      index,
      message: {
        role: 'assistant',
        content: (calls.length > 0 || refusal !== null) && text === '' ? null : text,
        refusal,
        ...(calls.length > 0 ? { tool_calls: toCalls(calls) } : {}),
      },
      logprobs: body.logprobs ? { content: logprobContent(logprobs), refusal: null } : null,
      finish_reason: finish,
      ...(body.unmask?.unmasking ? { unmask: { tokens: unmasked } } : {}),
    })),
    usage: usageOf(results, results.length),
  }
}

/** The answer as chunks. Unmasking events are chunks whose choice has no text of its own: others pass over them. */
async function* streamChunks(
  events: AsyncGenerator<ChatEvent, void>,
  { id, created, model }: Head,
  body: ChatRequest,
): AsyncGenerator<SentEvent, void> {
  const includeUsage = body.stream_options?.include_usage === true
  const chunk = (choices: unknown[], usage: Usage | null = null): SentEvent => ({
    data: JSON.stringify({
      id,
      object: 'chat.completion.chunk',
      created,
      model,
      choices,
      ...(includeUsage ? { usage } : {}),
    }),
  })
  const results: GenerateResult[] = []
  for await (const event of events) {
    const { index } = event
    const choice = (delta: object, rest: object = {}) => [
      { index, delta, logprobs: null, finish_reason: null, ...rest },
    ]
    if (event.kind === 'begin') {
      // Where blocks begin is counted from the start of the prompt.
      const begin = body.unmask?.unmasking ? { unmask: { tokens: [], prompt_tokens: event.promptTokens } } : {}
      yield chunk(choice({ role: 'assistant', content: '' }, begin))
    } else if (event.kind === 'text')
      yield chunk(
        choice(event.text === '' ? {} : { content: event.text }, {
          ...(event.logprobs ? { logprobs: { content: logprobContent(event.logprobs), refusal: null } } : {}),
          ...(event.unmasked ? { unmask: { tokens: event.unmasked } } : {}),
        }),
      )
    else if (event.kind === 'refusal') yield chunk(choice({ refusal: event.text }))
    else if (event.kind === 'calls')
      yield chunk(choice({ tool_calls: toCalls(event.calls).map((call, position) => ({ index: position, ...call })) }))
    else {
      results[index] = event.result
      yield chunk(choice({}, { finish_reason: event.finish }))
    }
  }
  if (includeUsage) yield chunk([], usageOf(results, results.length))
  yield { data: '[DONE]' }
}
