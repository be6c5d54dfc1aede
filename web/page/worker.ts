// The worker of the page: its model, asked as the server's routes are.
import * as z from 'zod'
import { answerQuestions, type Port } from '../../src/browser/channel.ts'
import { open } from '../../src/browser/open.ts'
import { UserError } from '../../src/core/types.ts'
import { type DecodingFields, samplingOf } from '../../src/serve/decoding.ts'
import { type ServedModel, servedModel } from '../../src/serve/worker/model.ts'
import type { GenerateJob, Prompt, Revision } from '../../src/serve/worker/protocol.ts'
import type { ChatMessage } from '../../src/tokenizer/types.ts'
import type { Chunk, Path } from '../api.ts'
import type { PageModel, PageQuestion } from './protocol.ts'

// The page's policy allows no code made at run time.
z.config({ jitless: true })

let served: ServedModel | undefined

function loaded(): ServedModel {
  if (!served) throw new UserError('the model is not loaded')
  return served
}

/** The page asks for none. */
const noConstraints = async (): Promise<never> => {
  throw new UserError('this page has no constraints')
}

type Body = Record<string, unknown> & { unmask?: DecodingFields['unmask'] }

/** What is asked: as in the routes of the server, without what only a server needs. */
function promptOf(path: Path, body: Body): Prompt | Revision {
  switch (path) {
    case '/v1/chat/completions':
      return { kind: 'chat', messages: body.messages as ChatMessage[] }
    case '/v1/completions':
      return { kind: 'text', text: body.prompt as string }
    case '/v1/infill':
      return { kind: 'revise', task: 'fill', parts: body.parts as Revision['parts'] }
    case '/v1/rewrite':
      return { kind: 'revise', task: 'rewrite', parts: [body.input as string] }
  }
}

async function run(path: Path, body: Body, signal: AbortSignal, send: (chunk: Chunk) => void): Promise<void> {
  const model = loaded()
  const { maxPositions } = model.info
  const prompt = promptOf(path, body)
  const masked =
    prompt.kind === 'revise'
      ? prompt.parts.reduce((sum, part) => sum + (typeof part === 'string' ? 0 : part.mask), 0)
      : 0
  const job: GenerateJob = {
    ...{ prompt, promptParam: 'prompt', maxPromptTokens: maxPositions, stop: [], unmasking: true },
    maxNewTokens: prompt.kind === 'revise' ? masked : Number(body.max_tokens ?? body.max_completion_tokens),
    sampling: samplingOf(body as DecodingFields, 0),
  }
  const result = await model.generate(job, signal, ({ text, unmasked, layout, promptTokens }) => {
    send({
      text,
      unmask: {
        ...{ tokens: unmasked ?? [] },
        ...(layout ? { layout } : {}),
        ...(promptTokens === undefined ? {} : { prompt_tokens: promptTokens }),
      },
    })
  })
  const { promptTokens, completionTokens, forwards, finish } = result
  send({
    text: '',
    choices: [{ finish_reason: finish }],
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      forwards,
      tokens_per_forward: forwards === 0 ? 0 : completionTokens / forwards,
    },
  })
}

answerQuestions<PageQuestion>(globalThis as unknown as Port<unknown>, async (question, { signal, part }) => {
  switch (question.kind) {
    case 'load': {
      const opened = await open(question.url, { ...question.options, signal, onProgress: part })
      served = servedModel(opened.loaded, opened.generator, { compile: noConstraints, dispose: opened.dispose })
      return { name: opened.loaded.name, info: served.info, backend: opened.backend } satisfies PageModel
    }
    case 'run':
      return run(question.path, question.body, signal, part)
    case 'count':
      return loaded().tokenize({ kind: 'text', text: question.text }, false, loaded().info.maxPositions).length
  }
})
