// Clients that people have, unchanged: the official openai package and the Vercel AI SDK.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, Output, streamText, tool } from 'ai'
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod'
import { hashKey, type RunningServer } from '../../src/serve/index.ts'
import { diffusionFolder, type TestModel, testServer, tiny } from './models.ts'

const KEY = 'unmask-test-key'
let folder: TestModel
let server: RunningServer
let openai: OpenAI

beforeAll(async () => {
  folder = await diffusionFolder()
  server = await testServer({
    models: [
      { name: 'tiny', path: tiny, aliases: ['gpt-4o-mini'] },
      { name: 'diffusion', path: folder.path },
    ],
    api_keys: [{ name: 'test', sha256: hashKey(KEY) }],
  })
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, maxRetries: 0 })
}, 60_000)
afterAll(async () => {
  await server.close()
  await folder.remove()
}, 60_000)

const messages = [{ role: 'user' as const, content: 'Four score and seven years ago' }]

describe('openai', () => {
  test('lists models', async () => {
    const models = await openai.models.list()
    expect(models.data.map(({ id }) => id)).toEqual(['tiny', 'diffusion'])
    expect(await openai.models.retrieve('gpt-4o-mini')).toMatchObject({ id: 'tiny', object: 'model' })
  })

  test.each(['tiny', 'diffusion'])('%s: a chat, whole and streamed, is the same', async (model) => {
    const settings = { model, messages, max_completion_tokens: 24 }
    const whole = await openai.chat.completions.create(settings)
    expect(whole.choices[0]).toMatchObject({ index: 0, message: { role: 'assistant' } })
    expect(whole.usage).toMatchObject({ prompt_tokens: expect.any(Number), completion_tokens: expect.any(Number) })
    const stream = await openai.chat.completions.create({
      ...settings,
      stream: true,
      stream_options: { include_usage: true },
    })
    let text = ''
    let finish: string | null = null
    let usage: unknown
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ''
      finish = chunk.choices[0]?.finish_reason ?? finish
      usage = chunk.usage ?? usage
    }
    expect(text).toBe(whole.choices[0]!.message.content)
    expect(finish).toBe(whole.choices[0]!.finish_reason)
    expect(usage).toEqual(whole.usage)
  })

  test('the helper that follows a stream to its end', async () => {
    const stream = openai.chat.completions.stream({ model: 'diffusion', messages, max_tokens: 16 })
    const final = await stream.finalChatCompletion()
    const whole = await openai.chat.completions.create({ model: 'diffusion', messages, max_tokens: 16 })
    expect(final.choices[0]!.message.content).toBe(whole.choices[0]!.message.content)
  })

  test('completions: several prompts, n, stop, log-probabilities', async () => {
    const prompts = ['reverse(stone)=', 'sort(dbca)=']
    const { choices, usage } = await openai.completions.create({
      model: 'gpt-4o-mini',
      prompt: prompts,
      n: 2,
      logprobs: 1,
      max_tokens: 12,
    })
    expect(choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'enots'],
      [1, 'enots'],
      [2, expect.any(String)],
      [3, choices[2]!.text],
    ])
    expect(choices[0]!.finish_reason).toBe('stop')
    expect(choices[0]!.logprobs!.tokens!.join('')).toBe('enots')
    expect(choices[0]!.logprobs!.token_logprobs!.every((value) => value <= 0)).toBe(true)
    expect(usage!.prompt_tokens).toBe(prompts.join('').length)
    const stopped = await openai.completions.create({
      model: 'tiny',
      prompt: prompts[0]!,
      stop: ['ot', 'x'],
      max_tokens: 12,
    })
    expect(stopped.choices[0]).toMatchObject({ text: 'en', finish_reason: 'stop' })
  })

  test('the reply counts forwards and tokens per forward', async () => {
    const { usage } = await openai.chat.completions.create({ model: 'diffusion', messages, max_tokens: 16 })
    const { forwards, tokens_per_forward: tpf } = usage as unknown as { forwards: number; tokens_per_forward: number }
    expect(tpf).toBeCloseTo(usage!.completion_tokens / forwards)
  })

  test('responses, whole and streamed', async () => {
    const settings = { model: 'diffusion', input: 'Hello', instructions: 'Be brief.', max_output_tokens: 16 }
    const whole = await openai.responses.create(settings)
    expect(whole.output_text.length).toBeGreaterThan(0)
    const stream = await openai.responses.create({ ...settings, stream: true })
    const types: string[] = []
    let text = ''
    for await (const event of stream) {
      types.push(event.type)
      if (event.type === 'response.output_text.delta') text += event.delta
    }
    expect(text).toBe(whole.output_text)
    expect(types.slice(0, 4)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
    ])
    expect(['response.completed', 'response.incomplete']).toContain(types.at(-1))
  })

  test.each(['tiny', 'diffusion'])('%s: answers are held to a JSON schema, and calls to their tool', async (model) => {
    const schema = {
      type: 'object',
      properties: { mood: { enum: ['good', 'bad'] }, count: { type: 'integer', minimum: 1, maximum: 9 } },
      required: ['mood', 'count'],
      additionalProperties: false,
    }
    const { choices } = await openai.chat.completions.create({
      ...{ model, messages, max_completion_tokens: 64 },
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } },
    })
    const answer = JSON.parse(choices[0]!.message.content!) as { mood: string; count: number }
    expect(Object.keys(answer)).toEqual(['mood', 'count'])
    expect(['good', 'bad']).toContain(answer.mood)
    const response = await openai.responses.create({
      ...{ model, input: 'Hello', max_output_tokens: 64 },
      text: { format: { type: 'json_schema', name: 'answer', schema } },
    })
    expect(Object.keys(JSON.parse(response.output_text))).toEqual(['mood', 'count'])
    const impossible = openai.chat.completions.create({
      ...{ model, messages, max_completion_tokens: 64 },
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'none', schema: { type: 'integer', minimum: 2, maximum: 1 } },
      },
    })
    await expect(impossible).rejects.toMatchObject({ status: 400, param: 'response_format' })
    const short = openai.chat.completions.create({
      ...{ model, messages, max_completion_tokens: 3 },
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } },
    })
    await expect(short).rejects.toMatchObject({ status: 400, param: 'response_format' })
  })

  test('a forced call, whole and streamed, then its answer', async () => {
    const parameters = {
      type: 'object',
      properties: { city: { enum: ['Bonn', 'Ulm'] } },
      required: ['city'],
      additionalProperties: false,
    }
    const tools = ['weather', 'time'].map((name) => ({ type: 'function' as const, function: { name, parameters } }))
    const settings = { model: 'diffusion', messages, tools, max_completion_tokens: 96 }
    const forced = { type: 'function' as const, function: { name: 'weather' } }
    const whole = await openai.chat.completions.create({ ...settings, tool_choice: forced })
    expect(whole.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } })
    const [call] = whole.choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[]
    expect(call!.function.name).toBe('weather')
    expect(['Bonn', 'Ulm']).toContain(JSON.parse(call!.function.arguments).city)
    const stream = openai.chat.completions.stream({ ...settings, tool_choice: 'required' })
    const streamed = (await stream.finalChatCompletion()).choices[0]!.message
    const [either] = streamed.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[]
    expect(['weather', 'time']).toContain(either!.function.name)
    const answer = { role: 'tool' as const, tool_call_id: call!.id, content: 'rain' }
    const after = await openai.chat.completions.create({
      ...settings,
      messages: [...messages, whole.choices[0]!.message, answer],
      max_completion_tokens: 4,
    })
    expect(after.choices).toHaveLength(1)
    const response = await openai.responses.create({
      ...{ model: 'diffusion', input: 'Hello', max_output_tokens: 96, tool_choice: 'required' },
      tools: [{ type: 'function', name: 'weather', parameters, strict: true }],
    })
    expect(response.output[0]).toMatchObject({ type: 'function_call', name: 'weather' })
  })

  test('errors are the classes that the package has for them', async () => {
    const wrong = openai.chat.completions.create({ model: 'tiny', messages, temperature: 9 })
    await expect(wrong).rejects.toBeInstanceOf(BadRequestError)
    await expect(wrong).rejects.toMatchObject({ param: 'temperature', type: 'invalid_request_error' })
    await expect(openai.chat.completions.create({ model: '../../etc/passwd', messages })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
      param: 'model',
    })
    await expect(openai.models.retrieve('none')).rejects.toBeInstanceOf(NotFoundError)
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 })
    await expect(stranger.models.list()).rejects.toBeInstanceOf(AuthenticationError)
    const long = openai.completions.create({ model: 'tiny', prompt: 'a'.repeat(4000), max_tokens: 1 })
    await expect(long).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'prompt' })
    const streamed = openai.completions.create({ model: 'tiny', prompt: 'a'.repeat(4000), stream: true })
    await expect(streamed).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' })
  })
})

describe('Vercel AI SDK', () => {
  const provider = () => createOpenAICompatible({ name: 'unmask', baseURL: `${server.url}/v1`, apiKey: KEY })

  test.each(['tiny', 'diffusion'])('%s: generateText and streamText agree', async (model) => {
    const settings = { model: provider()(model), prompt: 'Four score', maxOutputTokens: 16, maxRetries: 0 }
    const whole = await generateText(settings)
    expect(whole.usage.outputTokens).toBeGreaterThan(0)
    let text = ''
    for await (const piece of streamText(settings).textStream) text += piece
    expect(text).toBe(whole.text)
  })

  test('an object of a schema, and a call', async () => {
    const structured = createOpenAICompatible({
      ...{ name: 'unmask', baseURL: `${server.url}/v1`, apiKey: KEY, supportsStructuredOutputs: true },
    })
    const { output } = await generateText({
      ...{ model: structured('diffusion'), prompt: 'Hello', maxOutputTokens: 64, maxRetries: 0 },
      output: Output.object({ schema: z.object({ mood: z.enum(['good', 'bad']) }) }),
    })
    expect(['good', 'bad']).toContain(output.mood)
    const { toolCalls } = await generateText({
      ...{
        model: structured('diffusion'),
        prompt: 'Hello',
        maxOutputTokens: 96,
        maxRetries: 0,
        toolChoice: 'required',
      },
      tools: { weather: tool({ inputSchema: z.object({ city: z.enum(['Bonn', 'Ulm']) }) }) },
    })
    expect(toolCalls[0]).toMatchObject({ toolName: 'weather' })
    expect(['Bonn', 'Ulm']).toContain((toolCalls[0]!.input as { city: string }).city)
  })
})
