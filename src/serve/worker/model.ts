// A model as a server uses it: prompts to tokens, tokens to text, stop strings, log-probabilities. Knows no HTTP, and uses no Node
// API: the page of unmask export --to web has it in a worker.

import type { InferenceModel } from '../../checkpoint/load.ts'
import type { Generator } from '../../text/generator.ts'
import { promptStyle, trainedPlain } from '../../text/prompt.ts'
import { rewritePrompt } from '../../text/rewrite.ts'
import { createTextStream, textOf, tokenText } from '../../tokenizer/stream.ts'
import { generate } from './answer.ts'
import type { Compiling } from './compiling.ts'
import { checkCharacters, checkLength, createEncode } from './prompts.ts'
import type {
  GenerateEvent,
  GenerateJob,
  GenerateResult,
  ModelInfo,
  Prompt,
  ScoreJob,
  ScoreResult,
} from './protocol.ts'

export interface ServedModel {
  info: ModelInfo
  /** Reports events as they come. Rejects with RequestError, or the signal's reason. */
  generate(job: GenerateJob, signal: AbortSignal, onEvent: (event: GenerateEvent) => void): Promise<GenerateResult>
  score(job: ScoreJob, signal: AbortSignal): Promise<ScoreResult>
  tokenize(prompt: Prompt, addSpecialTokens: boolean, maxPromptTokens: number): number[]
  detokenize(ids: number[]): string
  dispose(): Promise<void>
}

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
  const encode = createEncode(loaded, generator)
  return {
    info: infoOf(loaded, generator),
    generate: (job, signal, onEvent) => generate({ loaded, generator, encode, compile }, job, { signal, onEvent }),
    async score(job, signal) {
      const ids = encode(job.prompt, job.promptParam, job.maxPromptTokens)
      checkLength(loaded, ids.length, job, 0)
      return scoreOf({ loaded, generator }, ids, { top: job.top, signal })
    },
    tokenize(prompt, addSpecialTokens, maxPromptTokens) {
      const param = prompt.kind === 'text' ? 'prompt' : 'messages'
      if (prompt.kind !== 'text') return encode(prompt, param, maxPromptTokens)
      checkCharacters(loaded, prompt, { param, maxTokens: maxPromptTokens })
      return tokenizer.encode(prompt.text, { addSpecialTokens, special: prompt.special ?? 'text' })
    },
    detokenize: (ids) => textOf(tokenizer, ids, { special: 'written' }),
    dispose,
  }
}

function infoOf(loaded: InferenceModel, generator: Generator): ModelInfo {
  const { tokenizer, model } = loaded
  const { vocabSize, maxPositions } = model.dimensions
  const { chatTemplate } = tokenizer
  const { template } = promptStyle(loaded)
  const nameOf = (id: number | undefined) => (id === undefined ? undefined : tokenizer.idToToken(id))
  return {
    mode: generator.mode,
    blockSize: generator.blockSize,
    maxPositions,
    vocabSize,
    chat: template === 'chat',
    plainPrompts: trainedPlain(model),
    tools: template === 'chat' && chatTemplate !== undefined && /\btools\b/.test(chatTemplate),
    infill: generator.mode === 'diffusion',
    chatTemplate,
    bosToken: nameOf(tokenizer.bosTokenId),
    eosToken: nameOf(tokenizer.eosTokenId),
    padToken: nameOf(tokenizer.padTokenId),
  }
}

/** The tokens of a text and, with `top`, how probable each is behind those before it. */
async function scoreOf(
  { loaded: { tokenizer }, generator }: { loaded: InferenceModel; generator: Generator },
  ids: number[],
  { top, signal }: { top: number | undefined; signal: AbortSignal },
): Promise<ScoreResult> {
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
  if (top === undefined) return { ids, text, tokens, offsets, logprobs: [], top: [] }
  const scores = await generator.score(ids, { top: Math.max(1, top), signal })
  return {
    ...{ ids, text, tokens, offsets },
    logprobs: scores.map((score) => score?.logprob),
    top: scores.map((score) =>
      (score?.top ?? []).map(({ token, logprob }) => ({ token: tokenText(tokenizer, token), logprob })),
    ),
  }
}
