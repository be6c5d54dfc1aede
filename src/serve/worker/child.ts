// The process that holds one model: loads it, then answers the server's messages. Being a process of its own, it can crash or
// be killed without the server, and its tokenising never holds up the server's connections.
import { RequestError } from './errors.ts'
import { createServedModel } from './load.ts'
import type { ServedModel } from './model.ts'
import type { WorkerError, WorkerReply, WorkerRequest } from './protocol.ts'

/** What was said since the last turn of the event loop: a forward's texts go in one message, which costs as much as one of them. */
let said: WorkerReply[] = []
const send = (reply: WorkerReply): void => {
  if (said.length === 0) setImmediate(flush)
  said.push(reply)
}

function flush(): void {
  if (said.length > 0) process.send?.(said)
  said = []
}

// Whoever stops the server stops it alone: it lets this process finish.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => {})
// Without the server nobody waits for an answer. An exit would first stop the executor inside native code.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))

let model: ServedModel | undefined
let closing = false
const running = new Map<number, AbortController>()

function describe(error: unknown): WorkerError {
  if (error instanceof RequestError)
    return {
      kind: 'request',
      message: error.message,
      param: error.param,
      code: error.code,
    }
  return { kind: 'internal', message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}

async function answer(id: number, work: (model: ServedModel, signal: AbortSignal) => Promise<unknown>): Promise<void> {
  const stop = new AbortController()
  running.set(id, stop)
  try {
    if (!model) throw new Error('no model is loaded')
    send({ kind: 'done', id, value: (await work(model, stop.signal)) as never })
  } catch (error) {
    send({ kind: 'error', id, error: describe(error) })
  } finally {
    running.delete(id)
    await endIfDone()
  }
}

async function endIfDone(): Promise<void> {
  if (!closing || running.size > 0) return
  await model?.dispose()
  flush()
  process.disconnect?.()
}

process.on('message', async (request: WorkerRequest) => {
  switch (request.kind) {
    case 'load':
      try {
        model = await createServedModel(request.settings)
        send({ kind: 'loaded', info: model.info })
      } catch (error) {
        send({ kind: 'unloadable', message: error instanceof Error ? error.message : String(error) })
      }
      return
    case 'generate': {
      const { id, job } = request
      // A sign of life, before anything that takes time.
      send({ kind: 'event', id, event: { text: '' } })
      flush()
      return answer(id, (served, signal) => served.generate(job, signal, (event) => send({ kind: 'event', id, event })))
    }
    case 'score':
      return answer(request.id, (served, signal) => served.score(request.job, signal))
    case 'tokenize':
      return answer(request.id, async (served) =>
        served.tokenize(request.prompt, request.addSpecialTokens, request.maxPromptTokens),
      )
    case 'detokenize':
      return answer(request.id, async (served) => served.detokenize(request.ids))
    case 'cancel':
      running.get(request.id)?.abort()
      return
    case 'ping':
      return send({ kind: 'pong' })
    case 'close':
      closing = true
      await endIfDone()
      return
  }
})
