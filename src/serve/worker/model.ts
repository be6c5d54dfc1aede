// A model as a server uses it: prompts to tokens, tokens to text, stop strings, log-probabilities. Knows no HTTP.
import type { CommittedToken, Generation } from '../../decode/index.ts'
import { createGenerator, promptIds } from '../../generate.ts'
import { loadAdapterFor, loadForInference } from '../../load.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { UserError } from '../../types.ts'
import { createAnswerText } from '../text.ts'
import { RequestError } from './errors.ts'
import type {
  GenerateEvent,
  GenerateJob,
  GenerateResult,
  ModelInfo,
  Prompt,
  ScoreJob,
  ScoreResult,
  TokenLogprob,
  UnmaskedToken,
  WorkerSettings,
} from './protocol.ts'
import { revise } from './revise.ts'

export interface ServedModel {
  info: ModelInfo
  /** Tells events as they come. Rejects with RequestError, or the signal's reason. */
  generate(job: GenerateJob, signal: AbortSignal, onEvent: (event: GenerateEvent) => void): Promise<GenerateResult>
  score(job: ScoreJob, signal: AbortSignal): Promise<ScoreResult>
  tokenize(prompt: Prompt, addSpecialTokens: boolean): number[]
  detokenize(ids: number[]): string
  dispose(): Promise<void>
}

/** What a call begins with where the chat template says so; elsewhere it is a bare object. */
const CALL = '<tool_call>'

/** Loads a model. Throws UserError where that cannot be done. */
export async function createServedModel(settings: WorkerSettings): Promise<ServedModel> {
  const loaded = await loadForInference(settings.path)
  const executor = createExecutor({
    ...(settings.threads === undefined ? {} : { threads: settings.threads }),
    ...(settings.device === undefined ? {} : { device: settings.device }),
  })
  const generator = await createGenerator(executor, loaded, {
    ...(settings.mode ? { mode: settings.mode } : {}),
    ...(settings.blockSize ? { blockSize: settings.blockSize } : {}),
    ...(settings.adapter ? { adapter: await loadAdapterFor(loaded.model, settings.adapter) } : {}),
    ...(settings.keepPrefixes ? { keepPrefixes: settings.keepPrefixes } : {}),
  })
  const { tokenizer } = loaded
  const { vocabSize, maxPositions } = loaded.model.dimensions
  const { chatTemplate } = tokenizer
  const eos = new Set(generator.endTokens)
  const nameOf = (id: number | undefined) => (id === undefined ? undefined : tokenizer.idToToken(id))

  /** Text of one token, unique among the tokens of a vocabulary. */
  function tokenText(id: number): string {
    const text = tokenizer.decode([id])
    return text === '' || text.includes('\ufffd') ? `token_id:${id}` : text
  }

  function encode(prompt: Prompt, param: string): number[] {
    if (prompt.kind === 'ids') {
      const wrong = prompt.ids.find((id) => id >= vocabSize)
      if (wrong !== undefined)
        throw new RequestError(`token ${wrong} is not among the ${vocabSize} of this model`, { param })
      return prompt.ids
    }
    try {
      if (prompt.kind === 'text') return promptIds(prompt.text, loaded, { template: 'none' })
      const { messages, tools, forced } = prompt
      const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, ...(tools ? { tools } : {}) })
      return tokenizer.encode(forced && chatTemplate?.includes(CALL) ? `${text}${CALL}\n` : text)
    } catch (error) {
      if (error instanceof UserError) throw new RequestError(error.message, { param })
      throw error
    }
  }

  function checkLength(length: number, job: Pick<GenerateJob, 'maxPromptTokens' | 'promptParam'>, room: number): void {
    const most = Math.min(job.maxPromptTokens, maxPositions - room)
    if (length > most)
      throw new RequestError(`the prompt has ${length} tokens; at most ${most} are possible here`, {
        param: job.promptParam,
        code: 'context_length_exceeded',
      })
    if (length === 0) throw new RequestError('the prompt is empty', { param: job.promptParam })
  }

  /** Starts a generation. Positions from `end` on are no part of the answer. Throws RequestError for what the model cannot. */
  function begin(prompt: number[], job: GenerateJob, signal: AbortSignal): { generation: Generation; end: number } {
    const { sampling, suffix, maxNewTokens, logprobs, constraint } = job
    const { logitBias, ...rest } = sampling
    const settings = {
      ...rest,
      signal,
      ...(logitBias ? { logitBias: new Map(logitBias) } : {}),
      ...(logprobs === undefined ? {} : { logprobs }),
      ...(constraint ? { constraint: constraint.source } : {}),
    }
    try {
      if (suffix === undefined)
        return { generation: generator.generate(prompt, { ...settings, maxNewTokens }), end: Number.POSITIVE_INFINITY }
      const end = prompt.length + maxNewTokens
      const behind = tokenizer.encode(suffix)
      checkLength(end + behind.length, job, 0)
      const hole = new Array<number>(maxNewTokens).fill(generator.maskTokenId!)
      const filling = { blockSize: generator.blockSize, ...settings }
      return { generation: generator.fill([...prompt, ...hole, ...behind], filling), end }
    } catch (error) {
      throw told(error, constraint?.param)
    }
  }

  /** What a client is told of an error: what is wrong with its request, nothing of others. */
  function told(error: unknown, param: string | undefined): unknown {
    return error instanceof UserError ? new RequestError(error.message, param === undefined ? {} : { param }) : error
  }

  return {
    info: {
      mode: generator.mode,
      blockSize: generator.blockSize,
      maxPositions,
      vocabSize,
      chat: chatTemplate !== undefined,
      tools: chatTemplate !== undefined && /\btools\b/.test(chatTemplate),
      infill: generator.mode === 'diffusion',
      chatTemplate,
      bosToken: nameOf(tokenizer.bosTokenId),
      eosToken: nameOf(tokenizer.eosTokenId),
      padToken: nameOf(tokenizer.padTokenId),
    },

    async generate(job, signal, onEvent) {
      const { prompt: asked } = job
      if (asked.kind === 'revise')
        return revise(asked, job, { generator, tokenizer, maxPositions, eos, signal, onEvent })
      const prompt = encode(asked, job.promptParam)
      checkLength(prompt.length, job, 1)
      const { stop, unmasking, logprobs } = job
      const text = createAnswerText(tokenizer, stop)
      const { generation, end } = begin(prompt, job, signal)
      const known = new Map<number, CommittedToken>()
      let next = prompt.length
      let forwards = 0
      let stopped = false
      onEvent({ promptTokens: prompt.length, text: '' })
      const result = (finish: 'stop' | 'length', cachedTokens: number): GenerateResult => {
        const rest = stopped ? '' : text.end()
        if (rest !== '') onEvent({ text: rest })
        const completionTokens = next - prompt.length
        return { finish, promptTokens: prompt.length, cachedTokens, completionTokens, forwards }
      }
      try {
        for (;;) {
          const { done, value } = await generation.next()
          if (done) {
            // The EOS is a token of the answer without a text.
            if (value.stop === 'eos') next++
            return result(value.stop === 'eos' ? 'stop' : 'length', value.cachedTokens)
          }
          forwards++
          const event: GenerateEvent = { text: '' }
          if (unmasking) event.unmasked = value.tokens.map((token) => unmasked(token, value.step, prompt.length))
          if (logprobs !== undefined) event.logprobs = []
          for (const token of value.tokens) known.set(token.position, token)
          for (; next < Math.min(value.final, end) && !stopped; next++) {
            const token = known.get(next)
            if (!token) throw new Error(`position ${next} is final without a token`)
            // What is committed behind an EOS is no part of the answer.
            if (eos.has(token.token)) break
            const pushed = text.push(token.token)
            event.text += pushed.text
            stopped = pushed.stopped
            if (!stopped && event.logprobs) event.logprobs.push(tokenLogprob(token, logprobs!))
          }
          event.tokens = next - prompt.length
          event.forwards = forwards
          if (event.text !== '' || event.unmasked || event.logprobs?.length) onEvent(event)
          if (stopped) return result('stop', 0)
        }
      } catch (error) {
        // A constraint that no text of this length meets is found out when the text begins.
        throw job.constraint ? told(error, job.constraint.param) : error
      } finally {
        // Leaving early gives the place back.
        await generation.return(undefined as never)
      }
    },

    async score(job, signal) {
      const ids = encode(job.prompt, job.promptParam)
      checkLength(ids.length, job, 0)
      const tokens = ids.map(tokenText)
      const stream = createAnswerText({ decode: (part) => tokenizer.decode(part) })
      let text = ''
      const offsets = ids.map((id) => {
        const here = text.length
        text += stream.push(id).text
        return here
      })
      text += stream.end()
      const { top } = job
      if (top === undefined) return { ids, text, tokens, offsets, logprobs: [], top: [] }
      const scores = await generator.score(ids, { top: Math.max(1, top), signal })
      return {
        ids,
        text,
        tokens,
        offsets,
        logprobs: scores.map((score) => score?.logprob),
        top: scores.map((score) =>
          (score?.top ?? []).map(({ token, logprob }) => ({ token: tokenText(token), logprob })),
        ),
      }
    },

    tokenize(prompt, addSpecialTokens) {
      if (prompt.kind === 'text') return tokenizer.encode(prompt.text, { addSpecialTokens })
      return encode(prompt, 'messages')
    },
    detokenize: (ids) => tokenizer.decode(ids.filter((id) => id < vocabSize)),
    async dispose() {
      await generator.dispose()
      await executor.dispose()
    },
  }

  function unmasked(token: CommittedToken, step: number, promptTokens: number): UnmaskedToken {
    return {
      position: token.position - promptTokens,
      token: token.token,
      text: tokenizer.decode([token.token]),
      step,
      confidence: token.confidence,
      ...(token.edited ? { edited: true } : {}),
    }
  }

  function tokenLogprob(token: CommittedToken, top: number): TokenLogprob {
    const alternatives = (token.top ?? []).slice(0, top)
    return {
      token: tokenText(token.token),
      logprob: token.logprob ?? Math.log(token.confidence),
      top: alternatives.map(({ token: id, logprob }) => ({ token: tokenText(id), logprob })),
    }
  }
}
