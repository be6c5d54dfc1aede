// POST /v1/responses: OpenAI's newer API, answered by the same chats. Nothing is kept, so every request brings its whole input.
import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import type { ChatMessage } from '../../tokenizer/types.ts'
import { readBody } from '../body.ts'
import { ApiError } from '../errors.ts'
import { usageOf } from '../generation.ts'
import { fromItems } from '../messages.ts'
import { type ResponsesRequest, responsesRequest } from '../schemas.ts'
import { eventStream, type SentEvent } from '../sse.ts'
import type { ToolCall } from '../tools.ts'
import type { GenerateResult } from '../worker/protocol.ts'
import { answerChat, type Chat, type ChatEvent } from './chat.ts'
import {
  askerOf,
  type Env,
  isSet,
  outputTokens,
  type RouteContext,
  runContext,
  startStream,
  stopOf,
} from './settings.ts'

export const responsesRoute = (context: RouteContext) => async (c: Context<Env>) => {
  const { models, limits, log, safety } = context
  const body = await readBody(c, responsesRequest, limits)
  const model = models.find(body.model)
  const run = runContext(context, c.var, body.stream === true)
  const events = answerChat(model, toChat(body, context), { limits, run, safety, asker: askerOf(model, c.var) })
  const sent = streamEvents(events, emptyResponse(body, model.name))
  if (body.stream) return eventStream(await startStream(sent, log), () => c.var.gone.abort())
  let response: unknown
  for await (const { data } of sent) response = JSON.parse(data).response ?? response
  return c.json(response as object)
}

function toChat(body: ResponsesRequest, { limits }: RouteContext): Chat {
  const { tool_choice: choice } = body
  const format = body.text?.format
  return {
    messages: toMessages(body),
    tools: (body.tools ?? []).map(({ name, description, parameters }) => ({
      type: 'function',
      function: { name, ...(isSet(description) ? { description } : {}), ...(parameters ? { parameters } : {}) },
    })),
    toolChoice: typeof choice === 'object' && choice !== null ? { name: choice.name } : (choice ?? 'auto'),
    parallelToolCalls: body.parallel_tool_calls ?? true,
    format:
      format?.type === 'json_schema'
        ? { type: 'json_schema', schema: format.schema }
        : { type: format?.type ?? 'text' },
    maxTokens: outputTokens(body.max_output_tokens, limits.output_tokens, limits, 'max_output_tokens'),
    n: 1,
    stop: stopOf(body.stop),
    logprobs: undefined,
    sampling: body,
    params: { messages: 'input', format: 'text.format', tools: 'tools', toolChoice: 'tool_choice' },
  }
}

function toMessages({ input, instructions }: ResponsesRequest): ChatMessage[] {
  const said = typeof input === 'string' ? [{ role: 'user', content: input }] : fromItems(input)
  return isSet(instructions) ? [{ role: 'system', content: instructions }, ...said] : said
}

const newId = (prefix: string) => `${prefix}_${randomUUID().replaceAll('-', '')}`

/** The response before anything is generated; its settings are echoed as OpenAI does. */
const emptyResponse = (body: ResponsesRequest, model: string) => ({
  id: newId('resp'),
  object: 'response',
  created_at: Math.floor(Date.now() / 1000),
  status: 'in_progress',
  error: null,
  incomplete_details: null as { reason: string } | null,
  instructions: body.instructions ?? null,
  max_output_tokens: body.max_output_tokens ?? null,
  model,
  output: [] as unknown[],
  parallel_tool_calls: body.parallel_tool_calls ?? true,
  previous_response_id: null,
  store: false,
  temperature: body.temperature ?? 0,
  text: { format: body.text?.format ?? { type: 'text' } },
  tool_choice: body.tool_choice ?? 'auto',
  tools: body.tools ?? [],
  top_p: body.top_p ?? 1,
  truncation: 'disabled',
  usage: null as object | null,
  metadata: {},
})

type ResponseObject = ReturnType<typeof emptyResponse>

/** The events of a response; the last one holds it whole. */
async function* streamEvents(events: AsyncGenerator<ChatEvent, void>, response: ResponseObject) {
  let sequence = 0
  const sent = (type: string, rest: object): SentEvent => ({
    event: type,
    data: JSON.stringify({ type, sequence_number: sequence++, ...rest }),
  })
  const message = { id: newId('msg'), type: 'message', role: 'assistant' }
  const part = (text: string) => ({ type: 'output_text', text, annotations: [] })
  const at = { item_id: message.id, output_index: 0, content_index: 0 }
  let text = ''
  let opened = false
  const output: unknown[] = []

  function* open(): Generator<SentEvent> {
    if (opened) return
    opened = true
    yield sent('response.output_item.added', {
      output_index: 0,
      item: { ...message, status: 'in_progress', content: [] },
    })
    yield sent('response.content_part.added', { ...at, part: part('') })
  }
  function* close(): Generator<SentEvent> {
    if (!opened) return
    const item = { ...message, status: 'completed', content: [part(text)] }
    output.push(item)
    yield sent('response.output_text.done', { ...at, text })
    yield sent('response.content_part.done', { ...at, part: part(text) })
    yield sent('response.output_item.done', { output_index: 0, item })
  }
  function* call({ name, arguments: given }: ToolCall): Generator<SentEvent> {
    const output_index = output.length
    const item = { id: newId('fc'), type: 'function_call', call_id: newId('call'), name, arguments: given }
    output.push({ ...item, status: 'completed' })
    const place = { item_id: item.id, output_index }
    yield sent('response.output_item.added', { output_index, item: { ...item, arguments: '', status: 'in_progress' } })
    yield sent('response.function_call_arguments.delta', { ...place, delta: given })
    yield sent('response.function_call_arguments.done', { ...place, name, arguments: given })
    yield sent('response.output_item.done', { output_index, item: { ...item, status: 'completed' } })
  }

  function* refuse(refusal: string): Generator<SentEvent> {
    const item = { ...message, status: 'completed', content: [{ type: 'refusal', refusal }] }
    output.push(item)
    yield sent('response.output_item.added', {
      output_index: 0,
      item: { ...message, status: 'in_progress', content: [] },
    })
    yield sent('response.content_part.added', { ...at, part: { type: 'refusal', refusal: '' } })
    yield sent('response.refusal.delta', { ...at, delta: refusal })
    yield sent('response.refusal.done', { ...at, refusal })
    yield sent('response.content_part.done', { ...at, part: item.content[0] })
    yield sent('response.output_item.done', { output_index: 0, item })
  }

  let begun = false
  for await (const event of events) {
    if (!begun) {
      begun = true
      yield sent('response.created', { response })
      yield sent('response.in_progress', { response })
    }
    if (event.kind === 'text') {
      if (event.unmasked)
        // A type of its own, which OpenAI's clients pass on or over; only for those who asked.
        yield sent('unmask.tokens', { tokens: event.unmasked })
      if (event.text === '') continue
      yield* open()
      text += event.text
      yield sent('response.output_text.delta', { ...at, delta: event.text, logprobs: [] })
    } else if (event.kind === 'refusal') yield* refuse(event.text)
    else if (event.kind === 'calls') {
      yield* close()
      for (const item of event.calls) yield* call(item)
    } else if (event.kind === 'end') {
      if (event.finish !== 'tool_calls' && output.length === 0) {
        yield* open()
        yield* close()
      }
      const reasons: Record<string, string> = { length: 'max_output_tokens', content_filter: 'content_filter' }
      const reason = reasons[event.finish]
      const cut = reason !== undefined
      yield sent(cut ? 'response.incomplete' : 'response.completed', {
        response: {
          ...response,
          status: cut ? 'incomplete' : 'completed',
          incomplete_details: cut ? { reason } : null,
          output,
          usage: responseUsage(event.result),
        },
      })
      return
    }
  }
  throw new ApiError(500, 'the answer was cut off by an internal error', { code: 'internal_error' })
}

function responseUsage(result: GenerateResult) {
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details, ...ours } = usageOf([result], 1)
  return {
    input_tokens: prompt_tokens,
    input_tokens_details: prompt_tokens_details,
    output_tokens: completion_tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens,
    ...ours,
  }
}
