// The text behind a prompt, as events. Uses no Node API.
import type { InferenceModel } from '../../checkpoint/load.ts'
import type { Constraint } from '../../decode/index.ts'
import { assemble, type TextToken, type Writing } from '../../text/assemble.ts'
import type { Generator } from '../../text/generator.ts'
import { rewritePrompt, rewrittenTokens } from '../../text/rewrite.ts'
import { tokenText } from '../../tokenizer/stream.ts'
import type { Tokenizer } from '../../tokenizer/types.ts'
import type { Compiling } from './compiling.ts'
import { asReported } from './errors.ts'
import { checkCharacters, checkLength, type Encode } from './prompts.ts'
import type { GenerateEvent, GenerateJob, GenerateResult, Prompt, TokenLogprob } from './protocol.ts'
import { revise, unmaskedToken } from './revise.ts'

/** What answers are made with. */
export interface Answering {
  loaded: InferenceModel
  generator: Generator
  encode: Encode
  compile: Compiling['compile']
}

interface Watching {
  signal: AbortSignal
  onEvent: (event: GenerateEvent) => void
}

/** Reports events as they come. Rejects with RequestError, or the signal's reason. */
export async function generate(
  answering: Answering,
  given: GenerateJob,
  { signal, onEvent }: Watching,
): Promise<GenerateResult> {
  const { loaded, generator } = answering
  checkCharacters(loaded, given.prompt, { param: given.promptParam, maxTokens: given.maxPromptTokens })
  const job = asWritten(loaded, given)
  const { prompt: asked } = job
  const { maxPositions } = loaded.model.dimensions
  if (asked.kind === 'revise') return revise(asked, job, { generator, maxPositions, signal, onEvent })
  const prompt = answering.encode(asked, job.promptParam, job.maxPromptTokens)
  checkLength(loaded, prompt.length, job, 1)
  const constraint = await constraintOf(job, answering.compile, signal)
  const writing = begin(answering, prompt, job, { signal, constraint })
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
      const { unmasking, logprobs } = job
      if (unmasking) event.unmasked = committed.map((token) => unmaskedToken(token, step, generator, prompt.length))
      if (logprobs !== undefined)
        event.logprobs = tokens.map((token) => tokenLogprob(loaded.tokenizer, token, logprobs))
      if (added !== '' || event.unmasked || event.logprobs?.length) onEvent(event)
    }
  } catch (error) {
    // A constraint that no text of this length meets is found out when the text begins.
    throw job.constraint ? asReported(error, job.constraint.param) : error
  } finally {
    // Leaving early gives the place back.
    await writing.return(undefined as never)
  }
}

/** Starts the text behind a prompt. Throws RequestError for what the model cannot. */
function begin(
  { loaded, generator }: Answering,
  prompt: number[],
  job: GenerateJob,
  { signal, constraint }: { signal: AbortSignal; constraint: Constraint | undefined },
): Writing {
  const { tokenizer } = loaded
  const { sampling, suffix, maxNewTokens, logprobs, stop, sharing } = job
  const { logitBias, ...rest } = sampling
  const settings = { ...rest, signal, logprobs, logitBias: logitBias && new Map(logitBias), sharing }
  try {
    if (suffix === undefined) return generator.write(prompt, { ...settings, maxNewTokens, stop, constraint })
    const end = prompt.length + maxNewTokens
    const behind = tokenizer.encode(suffix, { special: 'text', continues: true })
    checkLength(loaded, end + behind.length, job, 0)
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
  compile: Compiling['compile'],
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
function asWritten({ model, tokenizer }: InferenceModel, job: GenerateJob): GenerateJob {
  const { prompt, maxPromptTokens } = job
  if (prompt.kind !== 'revise' || prompt.task !== 'rewrite') return job
  const input = prompt.parts[0] as string
  const text = rewritePrompt(model, input)
  if (text === undefined) return job
  const most = rewrittenTokens(tokenizer.encode(input, { special: 'text' }).length)
  const asked: Prompt = { kind: 'chat', messages: [{ role: 'user', content: text }] }
  return { ...job, prompt: asked, maxNewTokens: Math.min(most, maxPromptTokens) }
}

function tokenLogprob(tokenizer: Tokenizer, token: TextToken, top: number): TokenLogprob {
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
