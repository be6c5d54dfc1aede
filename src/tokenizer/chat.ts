// Chat templates: finds the one a tokenizer brings and renders it with the variables that Hugging Face passes.
import { Template } from '@huggingface/jinja'
import { UserError } from '../types.ts'
import type { ChatMessage, Tool } from './types.ts'

export interface ChatVariables {
  messages: readonly ChatMessage[]
  add_generation_prompt: boolean
  tools?: readonly Tool[] | undefined
  bos_token?: string | undefined
  eos_token?: string | undefined
  pad_token?: string | undefined
  unk_token?: string | undefined
}

/** The template among `chat_template` of tokenizer_config.json (a text, or a list of named ones) and its own file. */
export function readChatTemplate(value: unknown, file: string | undefined): string | undefined {
  if (file !== undefined) return file
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  if (Array.isArray(value)) {
    const named = value.find((entry) => entry?.name === 'default')
    if (typeof named?.template === 'string') return named.template
    throw new UserError('tokenizer_config.json: none of the templates in chat_template is named "default"')
  }
  throw new UserError('tokenizer_config.json: chat_template must be a text or a list of named templates')
}

const parsed = new Map<string, Template>()

/** Renders a template; an error in it, or one that it raises, becomes a UserError. */
export function renderChat(template: string, variables: ChatVariables): string {
  try {
    let program = parsed.get(template)
    if (program === undefined) {
      program = new Template(template)
      parsed.clear() // one template at a time is in use; a server that loads models does not collect them
      parsed.set(template, program)
    }
    const defined = Object.entries(variables).filter(([, value]) => value !== undefined)
    return program.render({ tools: null, documents: null, ...Object.fromEntries(defined) })
  } catch (error) {
    throw new UserError(`the chat template failed: ${error instanceof Error ? error.message : error}`)
  }
}
