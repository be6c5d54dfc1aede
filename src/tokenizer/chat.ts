// Chat templates: finds those that a tokenizer brings and renders them with the variables that transformers passes.
import { UserError } from '../core/types.ts'
import { compile, toPythonJson } from './jinja/index.ts'
import type { ChatMessage, Tool } from './types.ts'

export interface ChatVariables {
  messages: readonly ChatMessage[]
  add_generation_prompt: boolean
  tools?: readonly Tool[] | null
  /** Texts of special tokens under the names that tokenizer_config.json has for them: bos_token, eos_token ... */
  [token: `${string}_token`]: string | undefined
}

export interface ChatTemplates {
  standard: string | undefined
  /** Used where there are tools, if the tokenizer has one for them. */
  withTools: string | undefined
}

/** The templates in `chat_template` of tokenizer_config.json (a text, or a list of named ones) and its own file. */
export function readChatTemplates(value: unknown, file: string | undefined): ChatTemplates {
  if (file !== undefined) return { standard: file, withTools: undefined }
  if (value === undefined || value === null) return { standard: undefined, withTools: undefined }
  if (typeof value === 'string') return { standard: value, withTools: undefined }
  if (!Array.isArray(value))
    throw new UserError('tokenizer_config.json: chat_template must be a text or a list of named templates')
  const named = (name: string): string | undefined => {
    const template = value.find((entry) => entry?.name === name)?.template
    return typeof template === 'string' ? template : undefined
  }
  const standard = named('default')
  if (standard === undefined)
    throw new UserError('tokenizer_config.json: none of the templates in chat_template is named "default"')
  return { standard, withTools: named('tool_use') }
}

const compiled = new Map<string, ReturnType<typeof compile>>()
/** A server that loads models does not collect their templates. */
const MOST_COMPILED = 8

/** Renders a template; an error in it, or one that it raises, becomes a UserError. */
export function renderChat(template: string, { messages, tools = null, ...variables }: ChatVariables): string {
  try {
    let render = compiled.get(template)
    if (render === undefined) {
      if (compiled.size >= MOST_COMPILED) compiled.clear()
      render = compile(template)
      compiled.set(template, render)
    }
    const shared = { ...variables, tools, documents: null }
    const given = messages.map(forTemplate)
    try {
      return render({ ...shared, messages: given })
    } catch (error) {
      // Most templates take the arguments of calls as objects, some (DeepSeek's) as JSON.
      const written = given.map(withArgumentsAsText)
      if (written.every((message, i) => message === given[i])) throw error
      try {
        return render({ ...shared, messages: written })
      } catch {
        throw error
      }
    }
  } catch (error) {
    throw new UserError(`the chat template failed: ${error instanceof Error ? error.message : error}`)
  }
}

/** Names that reasoning goes by; templates read the first, those of gpt-oss the second. */
const REASONING = ['reasoning_content', 'thinking', 'reasoning']

/** A message as transformers gives it to templates: what is null is absent, and reasoning has the names they read. */
function forTemplate(message: ChatMessage): Record<string, unknown> {
  const present = Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null))
  const reasoning = REASONING.map((name) => present[name]).find((value) => value !== undefined)
  return reasoning === undefined ? present : { thinking: reasoning, ...present, reasoning_content: reasoning }
}

function withArgumentsAsText(message: Record<string, unknown>): Record<string, unknown> {
  const calls = message.tool_calls as ChatMessage['tool_calls']
  if (!calls?.some((call) => typeof call.function.arguments === 'object')) return message
  const asText = ({ name, arguments: given }: (typeof calls)[number]['function']) => ({
    name,
    arguments: typeof given === 'object' ? toPythonJson(given) : given,
  })
  return { ...message, tool_calls: calls.map((call) => ({ ...call, function: asText(call.function) })) }
}
