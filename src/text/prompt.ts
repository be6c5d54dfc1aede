// How prompts are written: as training saw them, which the model's config records. From prompts and chats to tokens.

import type { InferenceModel } from '../checkpoint/load.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import { type PromptOptions as EncodeOptions, encodePrompt } from '../data/document.ts'
import type { ChatMessage, Tokenizer } from '../tokenizer/types.ts'

export interface PromptStyle {
  /** `chat`: by the chat template. `none`: the text as it is. */
  template: 'none' | 'chat'
  /** Text between a plain prompt and its completion. */
  separator: string
}

/** Keys of config.json that record the style of a model's training data. */
const TEMPLATE = 'prompt_template'
const SEPARATOR = 'prompt_separator'

type Prompted = { tokenizer: Tokenizer; model: { config: ModelConfig } }

/**
 * How prompts of a model are written: as given, else as its config.json records (`prompt_template`, `prompt_separator`), else
 * by the chat template where the tokenizer has one, without a separator. Throws UserError where the record makes no sense.
 */
export function promptStyle({ tokenizer, model }: Prompted, given: Partial<PromptStyle> = {}): PromptStyle {
  const { [TEMPLATE]: template, [SEPARATOR]: separator } = model.config
  if (template !== undefined && template !== 'none' && template !== 'chat')
    throw new UserError(`the model's config: ${TEMPLATE} is ${JSON.stringify(template)}; it must be "none" or "chat"`)
  if (separator !== undefined && typeof separator !== 'string')
    throw new UserError(`the model's config: ${SEPARATOR} is ${JSON.stringify(separator)}; it must be a text`)
  return {
    template: given.template ?? template ?? (tokenizer.chatTemplate === undefined ? 'none' : 'chat'),
    separator: given.separator ?? separator ?? '',
  }
}

/** The same as training data are rendered with. */
export function documentStyle(loaded: Prompted, given?: Partial<PromptStyle>): EncodeOptions {
  const { template, separator } = promptStyle(loaded, given)
  return { template: template === 'none' ? 'plain' : 'chat', separator }
}

/** The config of a model that was trained with prompts of this style. */
export const withPromptStyle = (config: ModelConfig, { template, separator }: PromptStyle): ModelConfig => {
  const { [SEPARATOR]: _, ...rest } = config
  return { ...rest, [TEMPLATE]: template, ...(separator === '' ? {} : { [SEPARATOR]: separator }) }
}

/** Whether the model's config says that it was trained with plain prompts: a chat is then its last question. */
export const trainedPlain = ({ config }: { config: ModelConfig }): boolean => config[TEMPLATE] === 'none'

export type PromptOptions = Partial<PromptStyle> & Pick<EncodeOptions, 'tools' | 'answer' | 'special'>

/**
 * The ids of a prompt as training saw it. Names of special tokens in it are text. A model of plain prompts knows no turns: of a
 * chat it gets the last message of a user, as it is. Throws UserError for a chat without one, or without a template that it needs.
 */
export function promptIds(
  prompt: string | readonly ChatMessage[],
  loaded: Pick<InferenceModel, 'tokenizer' | 'model'>,
  options: PromptOptions = {},
): number[] {
  const { tokenizer } = loaded
  const style = documentStyle(loaded, options)
  if (style.template === 'chat' && options.special === 'tokens')
    throw new UserError('special tokens can be named in a plain prompt only; in a chat they are those of the template')
  const written = style.template === 'plain' && typeof prompt !== 'string' ? lastOfUser(prompt) : prompt
  return encodePrompt(written, tokenizer, { ...options, ...style })
}

function lastOfUser(messages: readonly ChatMessage[]): string {
  const last = messages.findLast(({ role }) => role === 'user')
  if (!last)
    throw new UserError('this model takes plain prompts: a chat needs a message of a user, which is the prompt')
  return last.content
}

/** The ids of a text that is to be continued as it is, whatever the model's prompts are like. */
export const textIds = (
  text: string,
  { tokenizer }: Pick<InferenceModel, 'tokenizer'>,
  special?: EncodeOptions['special'],
): number[] => encodePrompt(text, tokenizer, { template: 'plain', separator: '', special })
