// Requests as zod schemas, from which the OpenAPI document is made. Fields that a schema does not know are left out, so that
// nothing obeys them; those that would change what comes back are known and refused by name.
import * as z from 'zod'
import { list } from '../formats/list.ts'
import { decodingFields } from './decoding.ts'
import { inputItem, message } from './messages.ts'

const whole = z.int().min(0)
const text = z.string()
const tokenId = z.int().min(0).max(0x7fff_ffff)
/** Token ids of one text; a body of the default size holds hardly more. */
const tokenIds = (min: number) => list(tokenId, { min, max: 1 << 18 })
/** The most sequences of a request, whatever the configuration says. */
const PROMPTS = 128
const TOOLS = 128
/** Messages of a chat, or items of an input. */
const MESSAGES = 4096

const model = text.max(256).nullish().describe('a name that GET /v1/models lists; default: the first')

/** A field of the API that is not supported, and what to do instead. */
const unsupported = (instead: string) =>
  z.null(`is not supported: ${instead}`).optional().describe(`not supported: ${instead}`)

const only = <T extends z.core.util.Literal>(value: T, otherwise: string) =>
  z.literal(value, `is not supported: ${otherwise}`).nullish().describe(`only ${value}: ${otherwise}`)

/** What every route that generates knows. */
const generating = {
  model,
  ...decodingFields,
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
}

const stop = z
  .union([text.min(1).max(256), list(text.min(1).max(256), { max: 16 })], 'expected a text or up to 16 texts')
  .nullish()
  .describe('the answer ends before the first of these')

const n = z.int().min(1).max(16).nullish()

const functionName = z.string().regex(/^[\w-]{1,64}$/, 'expected letters, digits, _ and - only, at most 64')
const functionTool = z.object({
  name: functionName,
  description: text.nullish(),
  parameters: z.record(text, z.unknown()).nullish(),
  strict: z.boolean().nullish(),
})

const plainFormat = z.object({ type: z.enum(['text', 'json_object']) })

export const chatRequest = z.object({
  ...generating,
  messages: list(message, { min: 1, max: MESSAGES }),
  max_tokens: z.int().min(1).nullish().describe('the older name of max_completion_tokens'),
  max_completion_tokens: z.int().min(1).nullish(),
  stop,
  n,
  logprobs: z.boolean().nullish(),
  top_logprobs: whole.max(20).nullish(),
  response_format: z
    .discriminatedUnion(
      'type',
      [
        plainFormat,
        z.object({
          type: z.literal('json_schema'),
          json_schema: z.object({
            name: functionName,
            schema: z.record(text, z.unknown()).nullish(),
            strict: z.boolean().nullish(),
          }),
        }),
      ],
      'expected text, json_object or json_schema',
    )
    .nullish(),
  tools: list(z.object({ type: z.literal('function', 'only functions'), function: functionTool }), {
    max: TOOLS,
  }).nullish(),
  tool_choice: z
    .union(
      [
        z.enum(['none', 'auto', 'required']),
        z.object({ type: z.literal('function'), function: z.object({ name: functionName }) }),
      ],
      'expected none, auto, required or a function',
    )
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  modalities: list(z.literal('text', 'only text is generated'), { max: 8 }).nullish(),
  functions: unsupported('use tools'),
  function_call: unsupported('use tool_choice'),
  audio: unsupported('only text is generated'),
  web_search_options: unsupported('there is no search'),
})

const parseSpecial = z
  .boolean()
  .nullish()
  .describe('names of special tokens in a text are the tokens; default false: they are text')

export const completionRequest = z.object({
  ...generating,
  prompt: z
    .union(
      [text, tokenIds(1), list(text, { min: 1, max: PROMPTS }), list(tokenIds(1), { min: 1, max: PROMPTS })],
      'expected a text, token ids, or a list of either',
    )
    .describe('a text, token ids, or a list of either'),
  suffix: text.nullish().describe('text after the gap that is to be filled in'),
  max_tokens: whole.nullish().describe('default 16; 0 only with echo'),
  parse_special: parseSpecial,
  stop,
  n,
  echo: z.boolean().nullish().describe('put the prompt before the answer; with logprobs its tokens are scored'),
  logprobs: whole.max(20).nullish().describe('alternatives per token'),
  best_of: only(1, 'use n'),
})

/** A text that is revised ends where it ends, and in one way. */
const revising = { ...generating, stop: unsupported('the text is given'), n: only(1, 'send a request each') }

export const infillRequest = z.object({
  ...revising,
  parts: list(z.union([text, z.strictObject({ mask: z.int().min(1).max(512) })], 'expected a text or {"mask": N}'), {
    min: 1,
    max: 512,
  }).describe('the text in order; {"mask": N} is a hole of N tokens'),
})

export const rewriteRequest = z.object({
  ...revising,
  input: text.min(1).describe('the text to correct; needs a model that was trained for that'),
})

const notKept = unsupported('nothing is kept; send all input')

export const responsesRequest = z.object({
  ...generating,
  input: z.union([text, list(inputItem, { min: 1, max: MESSAGES })], 'expected a text or a list of items'),
  instructions: text.nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  stop: stop.describe('not part of this API of OpenAI'),
  n: only(1, 'use /v1/chat/completions'),
  text: z
    .object({
      format: z
        .discriminatedUnion(
          'type',
          [
            plainFormat,
            z.object({
              type: z.literal('json_schema'),
              name: functionName,
              schema: z.record(text, z.unknown()),
              strict: z.boolean().nullish(),
              description: text.nullish(),
            }),
          ],
          'expected text, json_object or json_schema',
        )
        .nullish(),
    })
    .nullish(),
  tools: list(functionTool.extend({ type: z.literal('function', 'only functions') }), { max: TOOLS }).nullish(),
  tool_choice: z
    .union(
      [z.enum(['none', 'auto', 'required']), z.object({ type: z.literal('function'), name: functionName })],
      'expected none, auto, required or a function',
    )
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  top_logprobs: only(0, 'use /v1/chat/completions'),
  background: only(false, 'nothing is kept'),
  previous_response_id: notKept,
  conversation: notKept,
  prompt: notKept,
})

const absent = (value: unknown) => value === undefined || value === null

export const tokenizeRequest = z
  .object({
    model,
    prompt: text.nullish(),
    messages: list(message, { min: 1, max: MESSAGES }).nullish(),
    add_special_tokens: z.boolean().nullish(),
    parse_special: parseSpecial,
  })
  .refine(({ prompt, messages }) => absent(prompt) !== absent(messages), 'give either prompt or messages')

export const detokenizeRequest = z.object({ model, tokens: tokenIds(0) })

export const moderationRequest = z.object({
  model: text.max(256).nullish().describe('any name is accepted; there is one judge'),
  input: z
    .union(
      [
        text,
        list(text, { min: 1, max: PROMPTS }),
        list(z.object({ type: z.literal('text', 'only text'), text }), { min: 1, max: PROMPTS }),
      ],
      'expected a text, a list of texts or a list of text parts',
    )
    .describe('a text, a list of texts, or the text parts of one'),
})

export type ChatRequest = z.output<typeof chatRequest>
export type CompletionRequest = z.output<typeof completionRequest>
export type InfillRequest = z.output<typeof infillRequest>
export type RewriteRequest = z.output<typeof rewriteRequest>
export type ResponsesRequest = z.output<typeof responsesRequest>
