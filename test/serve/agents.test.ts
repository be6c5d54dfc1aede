// Conversations with tools through the clients that people have: every client must lead the model through the same turns,
// whichever API it speaks. The model knows no tools, so calls are forced; what it says is greedy, and the same for the same
// prompt.
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, type LanguageModel, type ModelMessage, stepCountIs, streamText, tool } from 'ai'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod'
import type { RunningServer } from '../../src/serve/index.ts'
import { diffusionFolder, modelFolder, type TestModel, testServer, toolTemplate } from './models.ts'

let folders: TestModel[]
let server: RunningServer
let openai: OpenAI
const provider = () => ({
  openai: createOpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' }),
  compatible: createOpenAICompatible({ name: 'unmask', baseURL: `${server.url}/v1`, includeUsage: true }),
})

beforeAll(async () => {
  folders = [await diffusionFolder(), await modelFolder({}, { chat_template: toolTemplate })]
  server = await testServer({
    models: ['diffusion', 'ar'].map((name, i) => ({ name, path: folders[i]!.path })),
  })
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 })
}, 60_000)
afterAll(async () => {
  await server.close()
  await Promise.all(folders.map((folder) => folder.remove()))
}, 60_000)

const parameters = {
  type: 'object' as const,
  properties: { city: { enum: ['Bonn', 'Ulm'] }, days: { type: 'integer' as const, minimum: 1, maximum: 9 } },
  required: ['city', 'days'],
  additionalProperties: false,
}
const nothing = { type: 'object' as const, properties: {}, additionalProperties: false }
const run = { weather: (given: object) => `rain for ${JSON.stringify(given)}`, now: () => '12:00' }
type Name = keyof typeof run

/** What a user asks, and what the model must do about it: call this and then answer. */
const turns: { question: string; call: Name }[] = [
  { question: 'Will it rain?', call: 'weather' },
  { question: 'What time is it?', call: 'now' },
]
const MOST = 64

/** What happened: calls with their arguments, and answers. */
type Transcript = (string | { name: string; given: unknown })[]

type Loop = (model: string) => Promise<Transcript>

const tools = (['weather', 'now'] as const).map((name) => ({
  type: 'function' as const,
  function: { name, parameters: name === 'weather' ? parameters : nothing },
}))

const chat =
  (stream: boolean): Loop =>
  async (model) => {
    const transcript: Transcript = []
    const messages: OpenAI.ChatCompletionMessageParam[] = []
    const ask = async (tool_choice: OpenAI.ChatCompletionToolChoiceOption) => {
      const body = { model, messages, tools, tool_choice, max_completion_tokens: MOST }
      const completion = stream
        ? await openai.chat.completions.stream(body).finalChatCompletion()
        : await openai.chat.completions.create(body)
      const { message } = completion.choices[0]!
      messages.push(message)
      return message
    }
    for (const { question, call } of turns) {
      messages.push({ role: 'user', content: question })
      const { tool_calls: calls = [] } = await ask({ type: 'function', function: { name: call } })
      for (const made of calls) {
        if (made.type !== 'function') throw new Error('not a function')
        const given = JSON.parse(made.function.arguments)
        transcript.push({ name: made.function.name, given })
        messages.push({ role: 'tool', tool_call_id: made.id, content: run[made.function.name as Name](given) })
      }
      transcript.push((await ask('none')).content ?? '')
    }
    return transcript
  }

const responses =
  (stream: boolean): Loop =>
  async (model) => {
    const transcript: Transcript = []
    const input: OpenAI.Responses.ResponseInput = []
    const ask = async (tool_choice: OpenAI.Responses.ToolChoiceFunction | 'none') => {
      const body = {
        ...{ model, input, tool_choice, max_output_tokens: MOST },
        tools: tools.map(({ type, function: { name, parameters: given } }) => ({
          ...{ type, name, parameters: given, strict: true },
        })),
      }
      const response = stream
        ? await openai.responses.stream(body).finalResponse()
        : await openai.responses.create(body)
      input.push(...(response.output as OpenAI.Responses.ResponseInput))
      return response
    }
    for (const { question, call } of turns) {
      input.push({ role: 'user', content: question })
      const { output } = await ask({ type: 'function', name: call })
      for (const item of output) {
        if (item.type !== 'function_call') continue
        const given = JSON.parse(item.arguments)
        transcript.push({ name: item.name, given })
        input.push({ type: 'function_call_output', call_id: item.call_id, output: run[item.name as Name](given) })
      }
      transcript.push((await ask('none')).output_text)
    }
    return transcript
  }

const sdk =
  (stream: boolean, make: (model: string) => LanguageModel): Loop =>
  async (name) => {
    const transcript: Transcript = []
    const messages: ModelMessage[] = []
    for (const { question, call } of turns) {
      messages.push({ role: 'user', content: question })
      const settings = {
        model: make(name),
        messages,
        tools: {
          weather: tool({ inputSchema: jsonSchema<object>(parameters), execute: async (given) => run.weather(given) }),
          now: tool({ inputSchema: jsonSchema<object>(nothing), execute: async () => run.now() }),
        },
        stopWhen: stepCountIs(2),
        prepareStep: ({ stepNumber }: { stepNumber: number }) => ({
          toolChoice: stepNumber === 0 ? { type: 'tool' as const, toolName: call } : ('none' as const),
        }),
        maxOutputTokens: MOST,
        maxRetries: 0,
        temperature: 0,
        providerOptions: { openai: { store: false } },
        onError: ({ error }: { error: unknown }) => {
          throw error
        },
      }
      const result = stream ? streamText(settings) : await generateText(settings)
      for (const step of await result.steps)
        for (const { toolName, input } of step.toolCalls) transcript.push({ name: toolName, given: input })
      transcript.push(await result.text)
      messages.push(...(await result.response).messages)
    }
    return transcript
  }

const loops: Record<string, (stream: boolean) => Loop> = {
  'openai, responses': responses,
  '@ai-sdk/openai, chat': (stream) => sdk(stream, (model) => provider().openai.chat(model)),
  '@ai-sdk/openai, responses': (stream) => sdk(stream, (model) => provider().openai.responses(model)),
  '@ai-sdk/openai-compatible': (stream) => sdk(stream, (model) => provider().compatible(model)),
}

describe.each(['diffusion', 'ar'])('%s: two questions, each with a call and an answer', (model) => {
  test('openai, chat: whole and streamed', async () => {
    const whole = await chat(false)(model)
    expect(whole).toHaveLength(4)
    expect(whole[0]).toMatchObject({ name: 'weather', given: { city: expect.stringMatching(/^(Bonn|Ulm)$/) } })
    expect(whole[2]).toEqual({ name: 'now', given: {} })
    expect(await chat(true)(model)).toEqual(whole)
  })

  test.each(Object.keys(loops))('%s: as openai, chat', async (name) => {
    const expected = await chat(false)(model)
    expect(await loops[name]!(false)(model)).toEqual(expected)
    expect(await loops[name]!(true)(model)).toEqual(expected)
  })
})

test('the helper that runs tools by itself', async () => {
  const called: unknown[] = []
  const weather = {
    type: 'function' as const,
    function: {
      ...{ name: 'weather', description: 'the weather', parameters },
      parse: (given: string) => JSON.parse(given) as object,
      function: (given: object) => {
        called.push(given)
        return 'rain'
      },
    },
  }
  const body = {
    ...{ model: 'diffusion', messages: [{ role: 'user' as const, content: 'a' }], max_completion_tokens: MOST },
    ...{ tools: [weather], tool_choice: 'required' as const },
  }
  const whole = openai.chat.completions.runTools(body, { maxChatCompletions: 2 })
  await whole.done()
  expect(called).toHaveLength(2)
  const streamed = openai.chat.completions.runTools({ ...body, stream: true }, { maxChatCompletions: 2 })
  await streamed.done()
  expect(called.slice(2)).toEqual(called.slice(0, 2))
  const roles = (messages: { role: string }[]) => messages.map(({ role }) => role)
  expect(roles(streamed.messages)).toEqual(roles(whole.messages))
})

test('the helpers for zod', async () => {
  const answer = z.object({ mood: z.enum(['good', 'bad']), at: z.iso.date(), more: z.array(z.int()).max(2).nullable() })
  const messages = [{ role: 'user' as const, content: 'a' }]
  const settings = { model: 'diffusion', max_completion_tokens: 96 }
  const completion = await openai.chat.completions.parse({
    ...{ ...settings, messages, response_format: zodResponseFormat(answer, 'answer') },
  })
  expect(answer.parse(completion.choices[0]!.message.parsed)).toBeTruthy()
  const response = await openai.responses.parse({
    ...{ model: 'diffusion', input: 'a', max_output_tokens: 96, text: { format: zodTextFormat(answer, 'answer') } },
  })
  expect(response.output_parsed).toEqual(completion.choices[0]!.message.parsed)
  const called = await openai.chat.completions.parse({
    ...{ ...settings, messages, tool_choice: 'required' },
    tools: [zodFunction({ name: 'note', parameters: answer })],
  })
  expect(answer.parse(called.choices[0]!.message.tool_calls![0]!.function.parsed_arguments)).toBeTruthy()
})

test('references to stored items, which @ai-sdk/openai sends unless told otherwise, say what to do', async () => {
  const asked = generateText({
    model: provider().openai.responses('diffusion'),
    ...{ maxRetries: 0, maxOutputTokens: 4 },
    messages: [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: [{ type: 'text', text: 'b', providerOptions: { openai: { itemId: 'msg_1' } } }] },
      { role: 'user', content: 'c' },
    ],
  })
  await expect(asked).rejects.toThrow('store: false')
})
