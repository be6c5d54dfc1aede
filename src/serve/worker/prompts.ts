// Prompts to tokens: what a model's prompt may hold and how long it may be. Uses no Node API.
import type { InferenceModel } from '../../checkpoint/load.ts'
import { remembering } from '../../core/remember.ts'
import type { Generator } from '../../text/generator.ts'
import { promptIds, textIds } from '../../text/prompt.ts'
import { asReported, RequestError } from './errors.ts'
import type { GenerateJob, Prompt, Revision } from './protocol.ts'

/** Characters per token beyond which a text is refused before it is tokenised; real text has 1 to 8. */
const MOST_CHARACTERS = 32
/** Prompts whose tokens are remembered. */
const PROMPTS = 8

/** What a call begins with where the chat template says so; elsewhere it is a bare object. */
const CALL = '<tool_call>'

/** Tokens of a prompt, those of recent ones remembered. Throws RequestError that names `param`. */
export type Encode = (prompt: Prompt, param: string, maxTokens: number) => number[]

export function createEncode(loaded: InferenceModel, generator: Pick<Generator, 'maskTokenId'>): Encode {
  const encode = ({ prompt, param }: { prompt: Prompt; param: string }) => encodeOnce(loaded, generator, prompt, param)
  const remembered = remembering(encode, (given) => JSON.stringify(given), PROMPTS)
  return (prompt, param, maxTokens) => {
    checkCharacters(loaded, prompt, { param, maxTokens })
    return prompt.kind === 'ids' ? encode({ prompt, param }) : remembered({ prompt, param })
  }
}

function encodeOnce(
  loaded: InferenceModel,
  generator: Pick<Generator, 'maskTokenId'>,
  prompt: Prompt,
  param: string,
): number[] {
  const { vocabSize } = loaded.model.dimensions
  if (prompt.kind === 'ids') {
    const wrong = prompt.ids.find((id) => id >= vocabSize)
    if (wrong !== undefined)
      throw new RequestError(`token ${wrong} is not among the ${vocabSize} of this model`, { param })
    return withoutMask(prompt.ids, generator, param)
  }
  try {
    if (prompt.kind === 'text') return withoutMask(textIds(prompt.text, loaded, prompt.special), generator, param)
    const { messages, tools, forced } = prompt
    const answer = forced && loaded.tokenizer.chatTemplate?.includes(CALL) ? `${CALL}\n` : undefined
    return promptIds(messages, loaded, { tools, answer })
  } catch (error) {
    throw asReported(error, param)
  }
}

/** A prompt holds no masks: what they are filled with would be its text. */
function withoutMask(ids: number[], { maskTokenId }: Pick<Generator, 'maskTokenId'>, param: string): number[] {
  if (maskTokenId === undefined || !ids.includes(maskTokenId)) return ids
  throw new RequestError(`token ${maskTokenId} is the mask of this model: no prompt can hold it`, { param })
}

/** Refuses what cannot fit by its length alone, before any work is done for it. */
export function checkCharacters(
  { model }: InferenceModel,
  prompt: Prompt | Revision,
  { param, maxTokens }: { param: string; maxTokens: number },
): void {
  if (prompt.kind === 'ids') return
  const { length } =
    prompt.kind === 'text'
      ? prompt.text
      : prompt.kind === 'chat'
        ? JSON.stringify([prompt.messages, prompt.tools])
        : prompt.parts.join('')
  const most = MOST_CHARACTERS * Math.min(maxTokens, model.dimensions.maxPositions)
  if (length > most) throw tooLong(length, most, 'characters', param)
}

/** Refuses a prompt of so many tokens that leaves less than `room` positions behind it. */
export function checkLength(
  { model }: InferenceModel,
  length: number,
  { maxPromptTokens, promptParam: param }: Pick<GenerateJob, 'maxPromptTokens' | 'promptParam'>,
  room: number,
): void {
  const most = Math.min(maxPromptTokens, model.dimensions.maxPositions - room)
  if (length > most) throw tooLong(length, most, 'tokens', param)
  if (length === 0) throw new RequestError('the prompt is empty', { param })
}

const tooLong = (length: number, most: number, unit: string, param: string): RequestError =>
  new RequestError(`the prompt has ${length} ${unit}; at most ${most} are possible here`, {
    param,
    code: 'context_length_exceeded',
  })
