// Routes about the server and its models: /v1/models, /health, /ready, /metrics, /tokenize and its relatives.
import type { Context } from 'hono'
import { readBody } from '../body.ts'
import { ApiError, badRequest } from '../errors.ts'
import { fromMessages } from '../messages.ts'
import { afterRest } from '../scheduler.ts'
import { detokenizeRequest, tokenizeRequest } from '../schemas.ts'
import { within } from '../wait.ts'
import { type ModelWorker, notAnswering } from '../worker/host.ts'
import type { Prompt } from '../worker/protocol.ts'
import { type Env, isSet, modelObject, type RouteContext } from './settings.ts'

export const listModels =
  ({ models }: RouteContext) =>
  (c: Context<Env>) =>
    c.json({ object: 'list', data: models.list().map(modelObject) })

export const getModel =
  ({ models }: RouteContext) =>
  (c: Context<Env>) =>
    c.json(modelObject(models.find(c.req.param('model'))))

/** Whether the process answers at all. */
export const health = (c: Context<Env>) => c.json({ status: 'ok' })

/** Whether every model that is to be loaded at the start is. */
export const ready =
  ({ models }: RouteContext, stopping: () => boolean) =>
  (c: Context<Env>) => {
    const states = models.list().map(({ name, state }) => ({ name, state }))
    const well = !stopping() && states.every(({ state }) => state === 'ready' || state === 'unloaded')
    return c.json({ status: stopping() ? 'stopping' : well ? 'ready' : 'not ready', models: states }, well ? 200 : 503)
  }

export const metricsRoute =
  ({ metrics }: RouteContext) =>
  async (c: Context<Env>) =>
    c.body(await metrics.text(), 200, { 'content-type': metrics.contentType })

/** Runs a short piece of work in the model's process. One at a time, clients in turns: it holds up those who generate. */
async function inWorker<T>(
  { models, limits: { seconds } }: RouteContext,
  c: Context<Env>,
  name: string | null | undefined,
  work: (worker: ModelWorker, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const model = models.find(name)
  model.check()
  const { client, gone } = c.var
  const { signal } = gone
  model.errands.admit(client, 1)
  const leave = model.enter()
  let release = () => {}
  let since: number | undefined
  try {
    release = await model.errands.acquire(client, signal)
    const worker = await model.ready(signal)
    since = performance.now()
    return await within(work(worker, signal), { signal, seconds, late: () => notAnswering(seconds) })
  } finally {
    if (since === undefined) release()
    else afterRest(release, since)
    leave()
  }
}

/** As vLLM has it: text or a chat to token ids. */
export const tokenize = (context: RouteContext) => async (c: Context<Env>) => {
  const body = await readBody(c, tokenizeRequest, context.limits)
  const prompt: Prompt = isSet(body.prompt)
    ? { kind: 'text', text: body.prompt, special: body.parse_special ? 'tokens' : 'text' }
    : { kind: 'chat', messages: fromMessages(body.messages!) }
  const { tokens, most } = await inWorker(context, c, body.model, async (worker, signal) => {
    if (prompt.kind === 'chat' && !worker.info.chat && !worker.info.plainPrompts)
      throw badRequest('this model has no chat template', 'messages')
    return {
      tokens: await worker.tokenize(
        prompt,
        { addSpecialTokens: body.add_special_tokens ?? true, maxPromptTokens: context.limits.prompt_tokens },
        signal,
      ),
      most: worker.info.maxPositions,
    }
  })
  return c.json({ tokens, count: tokens.length, max_model_len: most })
}

export const detokenize = (context: RouteContext) => async (c: Context<Env>) => {
  const body = await readBody(c, detokenizeRequest, context.limits)
  const prompt = await inWorker(context, c, body.model, (worker, signal) => worker.detokenize(body.tokens, signal))
  return c.json({ prompt })
}

/** What lm-evaluation-harness asks of a server whose tokenizer it uses. */
export const tokenizerInfo = (context: RouteContext) => async (c: Context<Env>) => {
  const { info } = await inWorker(context, c, c.req.query('model'), async (worker) => worker)
  return c.json({
    bos_token: info.bosToken ?? null,
    eos_token: info.eosToken ?? null,
    pad_token: info.padToken ?? null,
    chat_template: info.chatTemplate ?? null,
    vocab_size: info.vocabSize,
    model_max_length: info.maxPositions,
  })
}

export const notFound = (): never => {
  throw new ApiError(404, 'there is nothing at this address; /docs lists what there is', { code: 'not_found' })
}
