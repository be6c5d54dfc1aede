// Requests as zod schemas, from which the OpenAPI document is made. Fields that are not known are let through as OpenAI does,
// except those that ask for something else than what would come: these are refused by name.
import * as z from 'zod'
import { strategyNames } from '../decode/index.ts'

const whole = z.int().min(0)
const text = z.string()
const tokenId = z.int().min(0).max(0x7fff_ffff)

const model = text.max(256).nullish().describe('a name that GET /v1/models lists; default: the first')

/** Fields that would change what is returned, and what to do instead. */
const refused = {
  functions: 'use tools',
  function_call: 'use tool_choice',
  audio: 'only text is generated',
  web_search_options: 'there is no search',
  best_of: 'use n',
} as const

type Fields = Record<string, unknown>

const isDefault = (value: unknown) => value === undefined || value === null

function refuse(body: Fields, context: z.core.$RefinementCtx): void {
  const problem = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
  for (const [field, instead] of Object.entries(refused))
    if (!isDefault(body[field])) problem(field, `is not supported: ${instead}`)
  for (const field of ['frequency_penalty', 'presence_penalty'])
    if (!isDefault(body[field]) && body[field] !== 0) problem(field, 'is not supported: use repetition_penalty')
  const { modalities } = body
  if (!isDefault(modalities) && JSON.stringify(modalities) !== '["text"]')
    problem('modalities', 'only text is generated')
}

// Rows of a forward have the memory of a vocabulary each: block_size times buffer_size stays within what a prompt may take.
const unmask = z
  .strictObject({
    unmasking: z.boolean().default(false).describe('stream every committed token with position, step and confidence'),
    threshold: z
      .number()
      .min(0)
      .max(1)
      .optional()
      .describe('commit tokens whose probability is above this (diffusion)'),
    strategy: z.enum(strategyNames).optional().describe('rule that decides what a forward commits (diffusion)'),
    block_size: z.int().min(1).max(128).optional().describe('positions that are decoded together (diffusion)'),
    buffer_size: z
      .int()
      .min(1)
      .max(4)
      .optional()
      .describe('neighbouring blocks that are refined at a time (diffusion)'),
    tokens_per_step: z.int().min(1).max(4096).optional().describe('strategy fixed: tokens that a forward commits'),
    low_threshold: z.number().min(0).max(1).optional().describe('strategy hierarchy: the lower threshold'),
    factor: z.number().min(0).max(1e6).optional().describe('strategy factor'),
    entropy_bound: z.number().min(0).max(1e6).optional().describe('strategy entropy_bound'),
    editing_threshold: z
      .number()
      .min(0)
      .max(1)
      .optional()
      .describe('strategies edit and soft, and /v1/rewrite: a token becomes another whose probability is above this'),
  })
  .describe('what block diffusion adds; not part of the OpenAI API')

const sampling = {
  temperature: z.number().min(0).max(2).nullish().describe('0, the default, takes the most probable token'),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(-1).max(1_000_000).nullish().describe('-1 and 0 mean all; not part of the OpenAI API'),
  min_p: z.number().min(0).max(1).nullish().describe('not part of the OpenAI API'),
  repetition_penalty: z.number().positive().max(10).nullish().describe('not part of the OpenAI API'),
  seed: z.int().nullish().describe('the same seed gives the same answer on the same machine'),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/, 'keys are token ids'), z.number().min(-100).max(100))
    .refine((value) => Object.keys(value).length <= 1024, 'at most 1024 tokens')
    .nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish().describe('only 0'),
  presence_penalty: z.number().min(-2).max(2).nullish().describe('only 0'),
  stop: z
    .union([text.min(1).max(256), z.array(text.min(1).max(256)).max(16)], 'expected a text or up to 16 texts')
    .nullish()
    .describe('the answer ends before the first of these'),
  n: z.int().min(1).max(16).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  unmask: unmask.nullish(),
}

export type SamplingFields = Pick<
  z.output<z.ZodObject<typeof sampling>>,
  'temperature' | 'top_p' | 'top_k' | 'min_p' | 'repetition_penalty' | 'seed' | 'logit_bias' | 'unmask'
>

const textPart = z.looseObject({ type: z.enum(['text', 'input_text', 'output_text'], 'only text parts'), text })
const content = z.union([text, z.array(textPart)], 'expected a text or a list of text parts')
const messageName = text.max(256).nullish()

const toolCall = z.looseObject({
  id: text.max(256),
  type: z.literal('function'),
  function: z.looseObject({ name: text.max(256), arguments: text }),
})

const message = z.discriminatedUnion('role', [
  z.looseObject({ role: z.enum(['system', 'developer', 'user']), content, name: messageName }),
  z.looseObject({
    role: z.literal('assistant'),
    content: content.nullish(),
    name: messageName,
    tool_calls: z.array(toolCall).max(128).nullish(),
  }),
  z.looseObject({ role: z.literal('tool'), content, tool_call_id: text.max(256) }),
])

const functionName = z.string().regex(/^[\w-]{1,64}$/, 'letters, digits, _ and -, at most 64')
const functionTool = z.looseObject({
  name: functionName,
  description: text.nullish(),
  parameters: z.record(text, z.unknown()).nullish(),
  strict: z.boolean().nullish(),
})

const jsonSchemaFormat = z.looseObject({
  type: z.literal('json_schema'),
  json_schema: z.looseObject({
    name: functionName,
    schema: z.record(text, z.unknown()).nullish(),
    strict: z.boolean().nullish(),
  }),
})

export const chatRequest = z
  .looseObject({
    model,
    messages: z.array(message).min(1).max(4096),
    max_tokens: z.int().min(1).nullish().describe('the older name of max_completion_tokens'),
    max_completion_tokens: z.int().min(1).nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: whole.max(20).nullish(),
    response_format: z
      .union(
        [z.looseObject({ type: z.enum(['text', 'json_object']) }), jsonSchemaFormat],
        'expected text, json_object or json_schema',
      )
      .nullish(),
    tools: z
      .array(z.looseObject({ type: z.literal('function', 'only functions'), function: functionTool }))
      .max(128)
      .nullish(),
    tool_choice: z
      .union(
        [
          z.enum(['none', 'auto', 'required']),
          z.looseObject({ type: z.literal('function'), function: z.looseObject({ name: functionName }) }),
        ],
        'expected none, auto, required or a function',
      )
      .nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    ...sampling,
  })
  .superRefine(refuse)

export const completionRequest = z
  .looseObject({
    model,
    prompt: z
      .union(
        [text, z.array(tokenId).min(1), z.array(text).min(1), z.array(z.array(tokenId).min(1)).min(1)],
        'expected a text, token ids, or a list of either',
      )
      .describe('a text, token ids, or a list of either'),
    suffix: text.nullish().describe('text after the gap that is to be filled in'),
    max_tokens: whole.nullish().describe('default 16; 0 only with echo'),
    echo: z.boolean().nullish().describe('put the prompt before the answer; with logprobs its tokens are scored'),
    logprobs: whole.max(20).nullish().describe('alternatives per token'),
    ...sampling,
  })
  .superRefine(refuse)

const { stop: _stop, n: _n, ...revisedSampling } = sampling
const revised = { model, ...revisedSampling }

function refuseRevised(body: Fields, context: z.core.$RefinementCtx): void {
  refuse(body, context)
  for (const field of ['stop', 'n'])
    if (!isDefault(body[field]) && body[field] !== 1)
      context.addIssue({ code: 'custom', path: [field], message: 'is not supported here' })
}

export const infillRequest = z
  .looseObject({
    parts: z
      .array(z.union([text, z.strictObject({ mask: z.int().min(1).max(512) })], 'expected a text or {"mask": N}'))
      .min(1)
      .max(512)
      .describe('the text in order; {"mask": N} is a hole of N tokens'),
    ...revised,
  })
  .superRefine(refuseRevised)

export const rewriteRequest = z
  .looseObject({
    input: text.min(1).describe('the text to mend; needs a model that was trained to correct tokens'),
    ...revised,
  })
  .superRefine(refuseRevised)

const responseItem = z.union(
  [
    z.looseObject({
      type: z.literal('message').optional(),
      role: z.enum(['system', 'developer', 'user', 'assistant']),
      content,
    }),
    z.looseObject({
      type: z.literal('function_call'),
      call_id: text.max(256),
      name: text.max(256),
      arguments: text,
    }),
    z.looseObject({ type: z.literal('function_call_output'), call_id: text.max(256), output: content }),
  ],
  'expected a message, a function_call or a function_call_output',
)

export const responsesRequest = z
  .looseObject({
    model,
    input: z.union([text, z.array(responseItem).min(1).max(4096)], 'expected a text or a list of items'),
    instructions: text.nullish(),
    max_output_tokens: z.int().min(1).nullish(),
    text: z
      .looseObject({
        format: z
          .union(
            [
              z.looseObject({ type: z.enum(['text', 'json_object']) }),
              z.looseObject({
                type: z.literal('json_schema'),
                name: functionName,
                schema: z.record(text, z.unknown()),
              }),
            ],
            'expected text, json_object or json_schema',
          )
          .nullish(),
      })
      .nullish(),
    tools: z
      .array(functionTool.extend({ type: z.literal('function', 'only functions') }))
      .max(128)
      .nullish(),
    tool_choice: z
      .union(
        [z.enum(['none', 'auto', 'required']), z.looseObject({ type: z.literal('function'), name: functionName })],
        'expected none, auto, required or a function',
      )
      .nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    temperature: sampling.temperature,
    top_p: sampling.top_p,
    stream: z.boolean().nullish(),
    unmask: sampling.unmask,
  })
  .superRefine((body, context) => {
    refuse(body, context)
    const kept = {
      previous_response_id: body.previous_response_id,
      conversation: body.conversation,
      prompt: body.prompt,
    }
    for (const [field, value] of Object.entries(kept))
      if (!isDefault(value))
        context.addIssue({
          code: 'custom',
          path: [field],
          message: 'is not supported: nothing is kept; send all input',
        })
    if (body.background === true)
      context.addIssue({ code: 'custom', path: ['background'], message: 'is not supported: nothing is kept' })
  })

export const tokenizeRequest = z
  .looseObject({
    model,
    prompt: text.nullish(),
    messages: z.array(message).min(1).max(4096).nullish(),
    add_special_tokens: z.boolean().nullish(),
  })
  .refine(({ prompt, messages }) => isDefault(prompt) !== isDefault(messages), 'give either prompt or messages')

export const detokenizeRequest = z.looseObject({ model, tokens: z.array(tokenId) })

export const moderationRequest = z.looseObject({
  model: text.max(256).nullish().describe('taken from any client; there is one judge'),
  input: z
    .union(
      [
        text,
        z.array(text).min(1).max(128),
        z
          .array(z.looseObject({ type: z.literal('text', 'only text'), text }))
          .min(1)
          .max(128),
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
export type Message = z.output<typeof message>
