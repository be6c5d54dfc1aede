// The OpenAPI document, made from the schemas that requests are checked with.
import * as z from 'zod'
import { packageVersion } from '../core/versions.ts'
import { entriesOf } from '../formats/list.ts'
import {
  chatRequest,
  completionRequest,
  detokenizeRequest,
  infillRequest,
  moderationRequest,
  responsesRequest,
  rewriteRequest,
  tokenizeRequest,
} from './schemas.ts'

interface Route {
  summary: string
  request?: z.ZodType
  /** What answers besides JSON objects. */
  also?: string
}

const routes: Record<string, Record<string, Route>> = {
  '/v1/chat/completions': {
    post: { summary: 'Answer a chat.', request: chatRequest, also: 'text/event-stream' },
  },
  '/v1/completions': {
    post: {
      summary: 'Continue texts, fill gaps (suffix), score prompts (echo with logprobs).',
      request: completionRequest,
      also: 'text/event-stream',
    },
  },
  '/v1/responses': {
    post: { summary: 'Answer a chat, in the newer form.', request: responsesRequest, also: 'text/event-stream' },
  },
  '/v1/moderations': { post: { summary: 'Judge texts by category.', request: moderationRequest } },
  '/v1/infill': {
    post: {
      summary: 'Fill the holes of a text, any number of them. Not part of the OpenAI API.',
      request: infillRequest,
      also: 'text/event-stream',
    },
  },
  '/v1/rewrite': {
    post: {
      summary: 'Correct the tokens of a text, with a model trained for that. Not part of the OpenAI API.',
      request: rewriteRequest,
      also: 'text/event-stream',
    },
  },
  '/v1/models': { get: { summary: 'List the models.' } },
  '/v1/models/{model}': { get: { summary: 'One model.' } },
  '/tokenize': { post: { summary: 'Text or a chat to token ids.', request: tokenizeRequest } },
  '/detokenize': { post: { summary: 'Token ids to text.', request: detokenizeRequest } },
  '/tokenizer_info': { get: { summary: 'Special tokens and chat template of a model.' } },
  '/health': { get: { summary: 'Whether the server runs.' } },
  '/ready': { get: { summary: 'Whether its models are loaded.' } },
  '/metrics': { get: { summary: 'Metrics for Prometheus.', also: 'text/plain' } },
}

/** Statuses that any route may answer with beside 200, and when. */
const failures: Record<string, string> = {
  400: 'The request is wrong; `param` names the field.',
  401: 'An API key is missing or wrong.',
  403: 'The host name is not served.',
  404: 'There is no such model or address.',
  413: 'The body is too large.',
  415: 'The body is not JSON.',
  429: 'Too many requests; `Retry-After` says when to try again.',
  500: 'A defect of the server.',
  503: 'The model is being loaded again, or the server is stopping.',
}

export interface OpenApiDocument {
  openapi: string
  info: { title: string; version: string; description: string }
  paths: Record<string, Record<string, OpenApiOperation>>
  components: object
  security: object[]
}

interface OpenApiOperation {
  summary: string
  requestBody?: { required: true; content: { 'application/json': { schema: JsonSchema } } }
  responses: Record<string, object>
}

export interface JsonSchema {
  type?: string | string[]
  description?: string
  properties?: Record<string, JsonSchema>
  required?: string[]
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
  items?: JsonSchema
  [key: string]: unknown
}

export function openApiDocument(): OpenApiDocument {
  const error = { content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } }
  const errors = Object.fromEntries(
    Object.entries(failures).map(([status, description]) => [status, { description, ...error }]),
  )
  const operation = (path: string, { summary, request, also }: Route) => {
    const types = also === 'text/plain' ? ['text/plain'] : ['application/json', ...(also ? [also] : [])]
    const content = Object.fromEntries(
      types.map((type) => [type, { schema: type === 'application/json' ? { type: 'object' } : { type: 'string' } }]),
    )
    return {
      summary,
      ...(path.includes('{model}')
        ? { parameters: [{ name: 'model', in: 'path', required: true, schema: { type: 'string' } }] }
        : {}),
      ...(request
        ? { requestBody: { required: true as const, content: { 'application/json': { schema: jsonSchema(request) } } } }
        : {}),
      responses: {
        200: { description: 'OK', content },
        ...errors,
        ...(path === '/ready' ? { 503: { description: 'Not all models are loaded.', content } } : {}),
      },
    }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'unmask',
      version: packageVersion(),
      description: 'The OpenAI API in front of diffusion and autoregressive language models.',
    },
    paths: Object.fromEntries(
      Object.entries(routes).map(([path, methods]) => [
        path,
        Object.fromEntries(Object.entries(methods).map(([method, route]) => [method, operation(path, route)])),
      ]),
    ),
    components: {
      schemas: {
        Error: {
          type: 'object',
          required: ['error'],
          properties: {
            error: {
              type: 'object',
              required: ['message', 'type', 'param', 'code'],
              properties: {
                message: { type: 'string' },
                type: { type: 'string' },
                param: { type: ['string', 'null'] },
                code: { type: ['string', 'null'] },
              },
            },
          },
        },
      },
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
    },
    security: [{}, { key: [] }],
  }
}

function jsonSchema(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema: made }) {
      const entries = entriesOf(zodSchema)
      if (!entries) return
      delete made.entriesOf
      Object.assign(made, { [made.type === 'array' ? 'items' : 'additionalProperties']: jsonSchema(entries) })
    },
  })
  return rest as JsonSchema
}
