// POST /v1/infill and /v1/rewrite: texts whose holes are filled or whose tokens are corrected. Not part of the OpenAI API, but in
// its manner: the same settings, errors, usage and stream of events.
import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import { readBody } from '../body.ts'
import { type DecodingFields, samplingOf } from '../decoding.ts'
import { badRequest } from '../errors.ts'
import { type ChoiceEvent, runChoices, usageOf } from '../generation.ts'
import { judgeJobs, refuseAll } from '../safety.ts'
import { infillRequest, type RewriteRequest, rewriteRequest } from '../schemas.ts'
import { eventStream, type SentEvent } from '../sse.ts'
import type { GenerateResult, LayoutToken, Revision, UnmaskedToken } from '../worker/protocol.ts'
import { askerOf, type Env, outputTokens, type RouteContext, runContext, startStream } from './settings.ts'

/** A hole is one block however long it is, and each of its positions takes the memory of a vocabulary in a forward. */
const MOST_MASKED = 512

export const infillRoute = (context: RouteContext) => async (c: Context<Env>) => {
  const body = await readBody(c, infillRequest, context.limits)
  const masked = body.parts.reduce((sum, part) => sum + (typeof part === 'string' ? 0 : part.mask), 0)
  if (masked === 0) throw badRequest('parts: there is nothing to fill; a hole is {"mask": N}', 'parts')
  if (masked > MOST_MASKED) throw badRequest(`parts: at most ${MOST_MASKED} tokens are filled at a time`, 'parts')
  return revise(context, c, body, { task: 'fill', parts: body.parts, param: 'parts', masked })
}

export const rewriteRoute = (context: RouteContext) => async (c: Context<Env>) => {
  const body = await readBody(c, rewriteRequest, context.limits)
  return revise(context, c, body, { task: 'rewrite', parts: [body.input], param: 'input', masked: 0 })
}

interface Task {
  task: 'fill' | 'rewrite'
  parts: Revision['parts']
  param: string
  /** Tokens of all holes. */
  masked: number
}

async function revise(
  context: RouteContext,
  c: Context<Env>,
  body: Pick<RewriteRequest, 'model' | 'stream'> & DecodingFields,
  { task, parts, param, masked }: Task,
) {
  const { models, limits, log, safety } = context
  const model = models.find(body.model)
  const job = {
    prompt: { kind: 'revise' as const, task, parts },
    promptParam: param,
    maxPromptTokens: limits.prompt_tokens,
    maxNewTokens: outputTokens(masked, masked, limits, param),
    sampling: samplingOf(body, 0),
    stop: [],
    unmasking: body.unmask?.unmasking ?? false,
  }
  const head = {
    id: `${task}-${randomUUID()}`,
    object: task === 'fill' ? 'infill' : 'rewrite',
    created: Math.floor(Date.now() / 1000),
    model: model.name,
  }
  const asker = askerOf(model, c.var)
  const { jobs, blocked } = await judgeJobs(safety, [job], {
    asker,
    signal: c.var.gone.signal,
    detokenize: async () => '',
  })
  const events = blocked
    ? refuseAll(1)
    : safety.answers(runChoices(model, jobs, runContext(context, c.var, body.stream === true)), jobs, asker)
  if (body.stream) {
    const stream = await startStream(streamChunks(events, { ...head, object: `${head.object}.chunk` }), log)
    return eventStream(stream, () => c.var.gone.abort())
  }
  let text = ''
  let layout: LayoutToken[] = []
  const tokens: UnmaskedToken[] = []
  let result: GenerateResult | undefined
  for await (const event of events) {
    if (event.kind === 'end') result = event
    else {
      text += event.text
      layout = event.layout ?? layout
      tokens.push(...(event.unmasked ?? []))
    }
  }
  return c.json({
    ...head,
    text,
    ...holesOf(result!),
    finish_reason: result!.finish,
    ...(job.unmasking ? { unmask: { layout, tokens } } : {}),
    usage: usageOf([result!], 1),
  })
}

const holesOf = ({ holes }: GenerateResult) => (holes ? { holes } : {})

/** Text in order as it is final; where asked for, first the tokens as given, then those that each step decided; usage last. */
async function* streamChunks(
  events: AsyncIterable<ChoiceEvent> | Iterable<ChoiceEvent>,
  head: object,
): AsyncGenerator<SentEvent, void> {
  for await (const event of events) {
    const rest =
      event.kind === 'end'
        ? { text: '', ...holesOf(event), finish_reason: event.finish, usage: usageOf([event], 1) }
        : { text: event.text, ...unmaskOf(event) }
    yield { data: JSON.stringify({ ...head, ...rest }) }
  }
  yield { data: '[DONE]' }
}

function unmaskOf({ layout, unmasked }: Extract<ChoiceEvent, { kind: 'text' }>) {
  if (!layout && !unmasked) return {}
  return { unmask: { layout, tokens: unmasked ?? [] } }
}
