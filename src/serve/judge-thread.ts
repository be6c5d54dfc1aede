// The thread in which a server judges prompts: its connections and answers go on beside it. Texts are judged in pieces, those
// of different clients in turns.

import { setPriority } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { createFilters, type Judgement, type SafetyFilterSettings } from '../safety/index.ts'
import { createQueue } from './scheduler.ts'

// Where this means the thread and not its process: threads that pass tokens on are not to wait for it.
if (process.platform === 'linux') setPriority(0, 5)

export type JudgeRequest =
  | { kind: 'judge'; id: number; which: 'prompts' | 'moderation'; text: string; client: string }
  | { kind: 'cancel'; id: number }

export interface JudgeReply {
  id: number
  /** Undefined where the text was cancelled. */
  result?: Judgement & { scores: Map<string, number> }
  error?: string
}

const filters = await createFilters(workerData as SafetyFilterSettings)
const turns = createQueue({ concurrency: 1, limit: Number.POSITIVE_INFINITY, seconds: 86_400 })
const open = new Map<number, AbortController>()

async function judge({ id, which, text, client }: Extract<JudgeRequest, { kind: 'judge' }>): Promise<void> {
  const stop = new AbortController()
  open.set(id, stop)
  const turn = async () => {
    const release = await turns.acquire(client, stop.signal)
    // What has arrived meanwhile: texts of others, and who has left.
    await setImmediate()
    return release
  }
  const reply: JudgeReply = { id }
  try {
    reply.result = await filters[which]!.judge(text, { signal: stop.signal, turn })
  } catch (error) {
    if (!stop.signal.aborted) reply.error = String((error as Error).stack ?? error)
  }
  open.delete(id)
  parentPort!.postMessage(reply)
}

parentPort!.on('message', (request: JudgeRequest) => {
  if (request.kind === 'cancel') open.get(request.id)?.abort()
  else void judge(request)
})
