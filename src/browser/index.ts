// unmask in a web page: `import { load, generate } from 'unmask/web'`. The model lives in a worker, so that the page never waits;
// what decodes there are the modules that decode on Node.
import type { TextEvent, TextResult, Writing } from '../text/assemble.ts'
import type { OpenModel, WriteSettings } from '../text/model.ts'
import type { ChatMessage } from '../tokenizer/types.ts'
import { type Channel, createChannel } from './channel.ts'
import type { Progress } from './download.ts'
import { LoadError } from './errors.ts'
import type { Backend, OpenOptions, Source } from './open.ts'
import type { Answers, ChatSettings, Description, Question } from './protocol.ts'
import { openStore, type StoredModel } from './store.ts'

export { UserError } from '../core/types.ts'
export type { ConstraintSource } from '../decode/index.ts'
export type { TextEvent, TextResult, Writing } from '../text/assemble.ts'
export type { Filled, FillSettings, Piece } from '../text/fill.ts'
export type { WriteSettings } from '../text/model.ts'
export type { RewriteSettings, Rewritten } from '../text/rewrite.ts'
export type { ChatMessage } from '../tokenizer/types.ts'
export type { Progress } from './download.ts'
export { LoadError, type LoadReason } from './errors.ts'
export type { Backend, OpenOptions, RuntimeFiles, Source } from './open.ts'
export type { StoredModel } from './store.ts'

export interface LoadOptions extends OpenOptions {
  /** The worker to use, for bundlers that do not follow `new Worker(new URL(...))`: a module worker of unmask's `web/worker`. */
  worker?: () => Worker
}

/** A model in a worker. Calls may run at the same time: they share forwards. */
export interface WebModel
  extends Pick<OpenModel, 'name' | 'promptStyle' | 'generate' | 'chat' | 'infill' | 'rewrite' | 'score'> {
  /** What runs it. */
  readonly backend: Backend
  /** Bytes of memory that the runtime has taken, weights and caches included. */
  memory(): Promise<number>
  /** Ends the worker, and with it whatever runs. */
  dispose(): void
}

/**
 * Loads a model from a folder that `unmask export --to web` wrote, or from the files of a model folder. Rejects with LoadError,
 * whose `reason` says what an application may do; loading again is always possible.
 *
 * @example
 * const model = await load('/models/tiny/', { onProgress: console.log })
 * for await (const { added } of generate(model, 'reverse(stone)=')) output.append(added)
 */
export async function load(source: Source, options: LoadOptions = {}): Promise<WebModel> {
  const { signal, onProgress, worker: make, ...rest } = options
  const worker = make ? make() : new Worker(new URL('./worker.js', import.meta.url), { type: 'module' })
  const channel = createChannel<Question>(worker)
  const died = ({ message }: { message?: string }) =>
    channel.fail(
      new LoadError(
        'memory',
        `The model's worker ended${message ? `: ${message}` : ', probably for want of memory'}. Load again.`,
      ),
    )
  worker.addEventListener('error', died)
  worker.addEventListener('messageerror', () => died({}))
  try {
    const absolute = typeof source === 'string' ? new URL(source, document.baseURI).href : source
    const question: Question = { kind: 'load', source: absolute, options: rest }
    const onPart = (part: unknown) => onProgress?.(part as Progress)
    const description = (await channel.ask(question, { signal, onPart })) as Description
    return webModel(channel, description, () => {
      channel.fail(new Error('the model was disposed'))
      worker.terminate()
    })
  } catch (error) {
    worker.terminate()
    throw error
  }
}

/** Continues a prompt, or a chat: the text as it becomes final, then all of it. Leaving the loop ends the work. */
export const generate = (
  model: Pick<WebModel, 'generate' | 'chat'>,
  prompt: string | readonly ChatMessage[],
  settings?: WriteSettings,
): Writing => (typeof prompt === 'string' ? model.generate(prompt, settings) : model.chat(prompt, settings))

function webModel(channel: Channel<Question>, description: Description, dispose: () => void): WebModel {
  const answer = async <K extends keyof Answers>(
    question: Question & { kind: K },
    signal?: AbortSignal,
  ): Promise<Answers[K]> => (await channel.ask(question, { signal })) as Answers[K]
  const writing = (question: Question, signal: AbortSignal | undefined): Writing =>
    channel.stream(question, signal) as AsyncGenerator<TextEvent, TextResult, void>
  return {
    ...description,
    generate: (prompt, { signal, ...settings } = {}) => writing({ kind: 'generate', prompt, settings }, signal),
    chat: (messages, { signal, ...settings }: ChatSettings = {}) =>
      writing({ kind: 'chat', messages, settings }, signal),
    infill: (text, { signal, ...settings } = {}) => answer({ kind: 'infill', text, settings }, signal),
    rewrite: (text, { signal, ...settings } = {}) => answer({ kind: 'rewrite', text, settings }, signal),
    score: (text) => answer({ kind: 'score', text }),
    memory: () => answer({ kind: 'memory' }),
    dispose,
  }
}

/** The models that this browser keeps for this site. */
export async function storedModels(): Promise<StoredModel[]> {
  return (await (await openStore())?.models()) ?? []
}

/** Removes a model that is kept, by the address of its folder. */
export async function removeModel(url: string): Promise<void> {
  const folder = new URL(url.endsWith('/') ? url : `${url}/`, document.baseURI).href
  await (await openStore())?.remove(folder)
}
