import { expect, test } from 'vitest'
import type * as z from 'zod'
import { check } from '../formats/check.ts'
import { openApiDocument } from './openapi.ts'
import * as schemas from './schemas.ts'

const chat = { messages: [{ role: 'user', content: 'a' }] }
const many = (entry: unknown) => Array.from({ length: 20_000 }, () => entry)
const keys = (value: unknown, length = 20_000) => Object.fromEntries(Array.from({ length }, (_, i) => [`x${i}`, value]))

/** Problems of an error, those of the branches of unions too: what a check has collected. */
const collected = (issues: readonly z.core.$ZodIssue[]): number =>
  issues.reduce((sum, issue) => sum + 1 + (issue.code === 'invalid_union' ? collected(issue.errors.flat()) : 0), 0)

test.each<[string, z.ZodType, unknown]>([
  ['ids', schemas.detokenizeRequest, { tokens: many(-1) }],
  ['texts as ids', schemas.detokenizeRequest, { tokens: many('') }],
  ['prompts', schemas.completionRequest, { prompt: many({}) }],
  ['empty prompts', schemas.completionRequest, { prompt: many([]) }],
  ['prompts in prompts', schemas.completionRequest, { prompt: many([[[1]]]) }],
  ['one prompt with wrong ids', schemas.completionRequest, { prompt: [many('a')] }],
  ['stops', schemas.completionRequest, { prompt: 'a', stop: many('') }],
  ['biases', schemas.completionRequest, { prompt: 'a', logit_bias: keys(1) }],
  ['1000 biases', schemas.completionRequest, { prompt: 'a', logit_bias: keys('a', 1000) }],
  ['messages', schemas.chatRequest, { messages: many({}) }],
  ['4096 messages', schemas.chatRequest, { messages: many({}).slice(0, 4096) }],
  ['parts of text', schemas.chatRequest, { messages: [{ role: 'user', content: many({}) }] }],
  ['4096 parts of text', schemas.chatRequest, { messages: [{ role: 'user', content: many({}).slice(0, 4096) }] }],
  ['calls', schemas.chatRequest, { messages: [{ role: 'assistant', tool_calls: many({}) }] }],
  ['tools', schemas.chatRequest, { ...chat, tools: many({}) }],
  ['modalities', schemas.chatRequest, { ...chat, modalities: many('x') }],
  ['holes', schemas.infillRequest, { parts: many({}) }],
  ['items', schemas.responsesRequest, { input: many({}) }],
  ['parts of an item', schemas.responsesRequest, { input: [{ role: 'user', content: many({}) }] }],
  ['reasoning', schemas.responsesRequest, { input: [{ type: 'reasoning', summary: many({}), content: many(1) }] }],
  ['texts to judge', schemas.moderationRequest, { input: many({}) }],
  ['messages to tokenise', schemas.tokenizeRequest, { messages: many([]) }],
])('a flood of wrong %s is refused for the first of them', (_, schema, body) => {
  expect('problems' in check(schema, body)).toBe(true)
  expect(collected(schema.safeParse(body).error!.issues)).toBeLessThan(20)
})

test('the document says what lists and tables hold', () => {
  const text = JSON.stringify(openApiDocument())
  expect(text).not.toContain('entriesOf')
  const { requestBody } = openApiDocument().paths['/v1/completions']!.post!
  const { properties } = requestBody!.content['application/json'].schema
  expect(JSON.stringify(properties!.prompt)).toContain(
    '{"minItems":1,"maxItems":128,"type":"array","items":{"type":"string"}}',
  )
  expect(JSON.stringify(properties!.logit_bias)).toContain('"additionalProperties":{"type":"number"')
})
