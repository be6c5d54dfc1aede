// A model as a server uses it: prompts to tokens, tokens to text, stop strings, log-probabilities. Knows no HTTP, and uses no Node
// API: the page of unmask export --to web has it in a worker.

import type { InferenceModel } from '../../checkpoint/load.ts'
import { remembering } from '../../core/remember.ts'
import type { Constraint } from '../../decode/index.ts'
import { assemble, type TextToken, type Writing } from '../../text/assemble.ts'
import type { Generator } from '../../text/generator.ts'
import { promptIds, promptStyle, textIds, trainedPlain } from '../../text/prompt.ts'
import { rewritePrompt, rewrittenTokens } from '../../text/rewrite.ts'
import { createTextStream, textOf, tokenText } from '../../tokenizer/stream.ts'
import type { Compiling } from './compiling.ts'
import { asReported, RequestError } from './errors.ts'
import type {
  GenerateEvent,
  GenerateJob,
  GenerateResult,
  ModelInfo,
  Prompt,
  Revision,
  ScoreJob,
  ScoreResult,
  TokenLogprob,
} from './protocol.ts'
import { revise, unmaskedToken } from './revise.ts'

export interface ServedModel {
  info: ModelInfo
  /** Reports events as they come. Rejects with RequestError, or the signal's reason. */
  generate(job: GenerateJob, signal: AbortSignal, onEvent: (event: GenerateEvent) => void): Promise<GenerateResult>
  score(job: ScoreJob, signal: AbortSignal): Promise<ScoreResult>
  tokenize(prompt: Prompt, addSpecialTokens: boolean, maxPromptTokens: number): number[]
  detokenize(ids: number[]): string
  dispose(): Promise<void>
}

/** Characters per token beyond which a text is refused before it is tokenised; real text has 1 to 8. */
const MOST_CHARACTERS = 32
/** Prompts whose tokens are remembered. */
const PROMPTS = 8

/** What a call begins with where the chat template says so; elsewhere it is a bare object. */
const CALL = '<tool_call>'

/** What a model has from whoever loaded it. */
export interface Around {
  /** Compiles a constraint for one text of a client. */
  compile: Compiling['compile']
  dispose(): Promise<void>
}

/** What is served of a model whose generator is ready. Throws UserError for a model whose own settings make no sense. */
export function servedModel(loaded: InferenceModel, generator: Generator, { compile, dispose }: Around): ServedModel {
  // A prompt that makes no sense is found out now, not when it is needed.
  rewritePrompt(loaded.model, '')
  const { tokenizer } = loaded
  const { vocabSize, maxPositions } = loaded.model.dimensions
  const { chatTemplate } = tokenizer
  const { template } = promptStyle(loaded)
  const nameOf = (id: number | undefined) => (id === undefined ? undefined : tokenizer.idToToken(id))

  /** A prompt holds no masks: what they are filled with would be its text. */
  function withoutMask(ids: number[], param: string): number[] {
    if (generator.maskTokenId === undefined || !ids.includes(generator.maskTokenId)) return ids
    throw new RequestError(`token ${generator.maskTokenId} is the mask of this model: no prompt can hold it`, { param })
  }

  /** Refuses what cannot fit by its length alone, before any work is done for it. */
  function checkCharacters(prompt: Prompt | Revision, param: string, maxTokens: number): void {
    if (prompt.kind === 'ids') return
    const { length } =
      prompt.kind === 'text'
        ? prompt.text
        : prompt.kind === 'chat'
          ? JSON.stringify([prompt.messages, prompt.tools])
          : prompt.parts.join('')
    const most = MOST_CHARACTERS * Math.min(maxTokens, maxPositions)
    if (length > most)
      throw new RequestError(`the prompt has ${length} characters; at most ${most} are possible here`, {
        param,
        code: 'context_length_exceeded',
      })
  }

  function encode(prompt: Prompt, param: string, maxTokens: number): number[] {
    checkCharacters(prompt, param, maxTokens)
    return prompt.kind === 'ids' ? encodeOnce({ prompt, param }) : remembered({ prompt, param })
  }

  const remembered = remembering(encodeOnce, (given) => JSON.stringify(given), PROMPTS)

  function encodeOnce({ prompt, param }: { prompt: Prompt; param: string }): number[] {
    if (prompt.kind === 'ids') {
      const wrong = prompt.ids.find((id) => id >= vocabSize)
      if (wrong !== undefined)
        throw new RequestError(`token ${wrong} is not among the ${vocabSize} of this model`, { param })
      if (prompt.ids.includes(generator.maskTokenId ?? -1))
        throw new RequestError(`token ${generator.maskTokenId} is the mask of this model: no prompt can hold it`, {
          param,
        })
      return prompt.ids
    }
    try {
      if (prompt.kind === 'text') return withoutMask(textIds(prompt.text, loaded, prompt.special), param)
      const { messages, tools, forced } = prompt
      const answer = forced && chatTemplate?.includes(CALL) ? `${CALL}\n` : undefined
      return promptIds(messages, loaded, { tools, answer })
    } catch (error) {
      throw asReported(error, param)
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

  /** Starts the text behind a prompt. Throws RequestError for what the model cannot. */
  function begin(
    prompt: number[],
    job: GenerateJob,
    { signal, constraint }: { signal: AbortSignal; constraint: Constraint | undefined },
  ): Writing {
    const { sampling, suffix, maxNewTokens, logprobs, stop, sharing } = job
    const { logitBias, ...rest } = sampling
    const settings = { ...rest, signal, logprobs, logitBias: logitBias && new Map(logitBias), sharing }
    try {
      if (suffix === undefined) return generator.write(prompt, { ...settings, maxNewTokens, stop, constraint })
      const end = prompt.length + maxNewTokens
      const behind = tokenizer.encode(suffix, { special: 'text', continues: true })
      checkLength(end + behind.length, job, 0)
      const hole = new Array<number>(maxNewTokens).fill(generator.maskTokenId!)
      // What is asked for is at most so long.
      const filling = { blockSize: generator.blockSize, ...settings, ends: 'anywhere' } as const
      const generation = generator.fill([...prompt, ...hole, ...behind], filling)
      return assemble(generation, { tokenizer, prompt, endTokens: generator.endTokens, stop, end })
    } catch (error) {
      throw asReported(error, job.constraint?.param)
    }
  }

  /** Rejects with RequestError for a constraint that cannot be. */
  async function constraintOf(
    { constraint, sharing }: GenerateJob,
    signal: AbortSignal,
  ): Promise<Constraint | undefined> {
    if (!constraint) return undefined
    try {
      return await compile(constraint.source, sharing?.group ?? '', signal)
    } catch (error) {
      throw asReported(error, constraint.param)
    }
  }

  /** Models that are asked for a text without mistakes write it, as an answer. */
  function asWritten(job: GenerateJob): GenerateJob {
    const { prompt, maxPromptTokens } = job
    if (prompt.kind !== 'revise' || prompt.task !== 'rewrite') return job
    const input = prompt.parts[0] as string
    const text = rewritePrompt(loaded.model, input)
    if (text === undefined) return job
    const most = rewrittenTokens(tokenizer.encode(input, { special: 'text' }).length)
    const asked: Prompt = { kind: 'chat', messages: [{ role: 'user', content: text }] }
    return { ...job, prompt: asked, maxNewTokens: Math.min(most, maxPromptTokens) }
  }

  return {
    info: {
      mode: generator.mode,
      blockSize: generator.blockSize,
      maxPositions,
      vocabSize,
      chat: template === 'chat',
      plainPrompts: trainedPlain(loaded.model),
      tools: template === 'chat' && chatTemplate !== undefined && /\btools\b/.test(chatTemplate),
      infill: generator.mode === 'diffusion',
      chatTemplate,
      bosToken: nameOf(tokenizer.bosTokenId),
      eosToken: nameOf(tokenizer.eosTokenId),
      padToken: nameOf(tokenizer.padTokenId),
    },

    async generate(given, signal, onEvent) {
      // A sign of life, before anything that takes time.
      onEvent({ text: '' })
      checkCharacters(given.prompt, given.promptParam, given.maxPromptTokens)
      const job = asWritten(given)
      const { prompt: asked } = job
      if (asked.kind === 'revise') return revise(asked, job, { generator, maxPositions, signal, onEvent })
      const prompt = encode(asked, job.promptParam, job.maxPromptTokens)
      checkLength(prompt.length, job, 1)
      const { unmasking, logprobs } = job
      const constraint = await constraintOf(job, signal)
      const writing = begin(prompt, job, { signal, constraint })
      onEvent({ promptTokens: prompt.length, text: '' })
      try {
        for (;;) {
          const { done, value } = await writing.next()
          if (done) {
            const { stop, cachedTokens, tokens: completionTokens, forwards } = value
            const finish = stop === 'length' ? 'length' : 'stop'
            return { finish, promptTokens: prompt.length, cachedTokens, completionTokens, forwards }
          }
          const { added, tokens, committed, count, step } = value
          const event: GenerateEvent = { text: added, tokens: count, forwards: step + 1 }
          if (unmasking) event.unmasked = committed.map((token) => unmaskedToken(token, step, generator, prompt.length))
          if (logprobs !== undefined) event.logprobs = tokens.map((token) => tokenLogprob(token, logprobs))
          if (added !== '' || event.unmasked || event.logprobs?.length) onEvent(event)
        }
      } catch (error) {
        // A constraint that no text of this length meets is found out when the text begins.
        throw job.constraint ? asReported(error, job.constraint.param) : error
      } finally {
        // Leaving early gives the place back.
        await writing.return(undefined as never)
      }
    },

    async score(job, signal) {
      const ids = encode(job.prompt, job.promptParam, job.maxPromptTokens)
      checkLength(ids.length, job, 0)
      const stream = createTextStream(tokenizer, { special: 'written' })
      let text = ''
      let characters = 0
      const offsets: number[] = []
      const tokens = ids.map((id) => {
        const piece = stream.push(id)
        offsets.push(characters)
        text += piece.text
        characters += [...piece.text].length
        return tokenText(tokenizer, id, { bytes: tokenizer.bytesOf(id) && piece.bytes })
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
          (score?.top ?? []).map(({ token, logprob }) => ({ token: tokenText(tokenizer, token), logprob })),
        ),
      }
    },

    tokenize(prompt, addSpecialTokens, maxPromptTokens) {
      const param = prompt.kind === 'text' ? 'prompt' : 'messages'
      checkCharacters(prompt, param, maxPromptTokens)
      if (prompt.kind === 'text')
        return tokenizer.encode(prompt.text, { addSpecialTokens, special: prompt.special ?? 'text' })
      return encode(prompt, param, maxPromptTokens)
    },
    detokenize: (ids) => textOf(tokenizer, ids, { special: 'written' }),
    dispose,
  }

  function tokenLogprob(token: TextToken, top: number): TokenLogprob {
    const own = tokenizer.bytesOf(token.token) && token.bytes
    return {
      token: tokenText(tokenizer, token.token, { bytes: own }),
      bytes: own,
      offset: token.offset,
      logprob: token.logprob ?? Math.log(token.confidence),
      top: (token.top ?? []).slice(0, top).map(({ token: id, logprob }) => ({
        ...{ token: tokenText(tokenizer, id), bytes: tokenizer.bytesOf(id), logprob },
      })),
    }
  }
}
