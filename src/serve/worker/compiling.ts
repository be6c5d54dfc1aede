// Compiles constraints in a thread: one at a time, clients in turns, each constraint once. Knows no models.
import type { Worker } from 'node:worker_threads'
import { UserError } from '../../core/types.ts'
import { type Constraint, type ConstraintSource, constraintOf, type Vocabulary } from '../../decode/index.ts'
import { startThread } from '../../threads/start.ts'
import { createQueue } from '../scheduler.ts'
import type { Compiled, ToCompile } from './compile-thread.ts'

/** Longest time of a compilation, in seconds: its steps are counted, so that only a machine that stands still takes longer. */
const SECONDS = 60
/** Constraints that are kept, those among them that were refused. */
const KEPT = 16
/** Memory of the thread. */
const HEAP_MB = 512

export interface Compiling {
  /** Rejects with UserError for a source that cannot be compiled, and with the signal's reason while it waits. */
  compile(source: ConstraintSource, client: string, signal: AbortSignal): Promise<Constraint>
  close(): Promise<void>
}

/** For a model's vocabulary, made when it is needed. What cannot be compiled is refused again at once. */
export function createCompiling(vocabulary: () => Vocabulary): Compiling {
  const turns = createQueue({ concurrency: 1, limit: Number.POSITIVE_INFINITY, seconds: 86_400 })
  const known = new Map<string, { constraint: Constraint } | { error: UserError }>()
  let thread: Worker | undefined
  /** What is being compiled. */
  let current: { resolve(compiled: Compiled): void; reject(error: Error): void } | undefined

  function started(): Worker {
    const worker = startThread(new URL('./compile-thread.ts', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    })
    worker.on('message', (compiled: Compiled) => current?.resolve(compiled))
    // One that has ended, or is to end, is no longer of concern.
    const fail = (error: Error) => {
      if (thread !== worker) return
      thread = undefined
      current?.reject(error)
    }
    worker.on('error', fail)
    worker.on('exit', () => fail(new Error('the thread that compiles constraints ended')))
    worker.unref()
    return worker
  }

  async function inThread(source: ConstraintSource): Promise<Compiled> {
    thread ??= started()
    const worker = thread
    let timer: NodeJS.Timeout | undefined
    try {
      return await new Promise((resolve, reject) => {
        current = { resolve, reject }
        timer = setTimeout(() => {
          thread = undefined
          reject(new UserError('constraint: takes too long to compile'))
          void worker.terminate()
        }, SECONDS * 1000)
        worker.postMessage({ source, usable: vocabulary().single } satisfies ToCompile)
      })
    } finally {
      clearTimeout(timer)
      current = undefined
    }
  }

  async function make(source: ConstraintSource): Promise<{ constraint: Constraint } | { error: UserError }> {
    const compiled = await inThread(source)
    if ('error' in compiled && !compiled.user) throw new Error(compiled.error)
    try {
      if ('error' in compiled) throw new UserError(compiled.error)
      return { constraint: constraintOf(compiled.constraint, vocabulary()) }
    } catch (error) {
      if (error instanceof UserError) return { error }
      throw error
    }
  }

  return {
    async compile(source, client, signal) {
      const key = JSON.stringify(source)
      let result = known.get(key)
      if (!result) {
        const release = await turns.acquire(client, signal)
        try {
          result = known.get(key) ?? (await make(source))
        } finally {
          release()
        }
      }
      known.delete(key)
      known.set(key, result)
      if (known.size > KEPT) known.delete(known.keys().next().value as string)
      if ('error' in result) throw result.error
      return result.constraint
    },
    close: async () => void (await thread?.terminate()),
  }
}
