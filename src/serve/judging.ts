// Judges whole texts in a thread (judge-thread.ts), for clients in turns. Knows no routes.
import type { Worker } from 'node:worker_threads'
import type { Judgement, SafetyFilterSettings } from '../safety/index.ts'
import { startThread } from '../threads/start.ts'
import type { Limits } from './config.ts'
import type { JudgeReply, JudgeRequest } from './judge-thread.ts'
import { createQueue } from './scheduler.ts'

/** Texts that are judged at a time, piece by piece. */
const AT_A_TIME = 32
/** Memory of the thread. */
const HEAP_MB = 512

type Judged = Judgement & { scores: Map<string, number> }

export interface Judging {
  /** Rejects with 429 where a client has too many texts waiting, and with the signal's reason. */
  judge(
    which: 'prompts' | 'moderation',
    text: string,
    { client, signal }: { client: string; signal: AbortSignal },
  ): Promise<Judged>
  close(): Promise<void>
}

/** The thread starts with the first text. */
export function createJudging(
  settings: SafetyFilterSettings,
  { queue, queue_seconds: seconds }: Pick<Limits, 'queue' | 'queue_seconds'>,
): Judging {
  const places = createQueue({ concurrency: AT_A_TIME, limit: queue, seconds })
  const pending = new Map<number, { resolve(judged: Judged): void; reject(error: Error): void }>()
  let nextId = 0
  let thread: Worker | undefined

  function started(): Worker {
    const worker = startThread(new URL('./judge-thread.ts', import.meta.url), {
      workerData: settings,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    })
    const fail = (error: Error) => {
      if (thread !== worker) return
      thread = undefined
      for (const { reject } of pending.values()) reject(error)
    }
    worker.on('message', ({ id, result, error }: JudgeReply) => {
      if (result) pending.get(id)?.resolve(result)
      else pending.get(id)?.reject(new Error(error ?? 'the text was cancelled'))
    })
    worker.on('error', fail)
    worker.on('exit', () => fail(new Error('the thread that judges texts ended')))
    worker.unref()
    return worker
  }

  return {
    async judge(which, text, { client, signal }) {
      places.admit(client, 1)
      const release = await places.acquire(client, signal)
      const id = nextId++
      thread ??= started()
      const worker = thread
      const send = (request: JudgeRequest) => worker.postMessage(request)
      let abort = () => {}
      try {
        return await new Promise<Judged>((resolve, reject) => {
          pending.set(id, { resolve, reject })
          abort = () => {
            send({ kind: 'cancel', id })
            reject(signal.reason)
          }
          signal.addEventListener('abort', abort, { once: true })
          send({ kind: 'judge', id, which, text, client })
        })
      } finally {
        signal.removeEventListener('abort', abort)
        pending.delete(id)
        release()
      }
    },
    async close() {
      places.clear(new Error('the server is stopping'))
      await thread?.terminate()
    },
  }
}
