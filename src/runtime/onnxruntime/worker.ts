// The worker that owns ONNX Runtime: sessions, and buffers that stay here between runs ("resident"). It knows no models: it
// loads ONNX bytes, runs them and moves values.
import { parentPort, workerData } from 'node:worker_threads'
import { arrays } from '../../core/element-types.ts'
import type { DType, TensorData, TypedArray } from '../../core/types.ts'
import type { Resident, Source } from '../executor.ts'
import { DeviceError } from './device.ts'
import type { Answer, Request, WorkerData } from './protocol.ts'
import { createSession, type Session } from './session.ts'
import type { Value } from './values.ts'
import { type HeldWeight, holdWeight } from './weights.ts'

const port = parentPort!
const { threads, device } = workerData as WorkerData

const sessions = new Map<string, Session>()
/** Weights of sessions that are not loaded yet. */
const waiting = new Map<string, HeldWeight[]>()
const residents = new Map<string, { dtype: DType; data: TypedArray }>()
/** Names of the resident buffers that are bound, by session. */
const bound = new Map<string, Set<string>>()

function resident(name: string) {
  const found = residents.get(name)
  if (!found) throw new Error(`no resident buffer ${name}`)
  return found
}

/** The values of a request or part of a resident buffer, without a copy. */
function given(source: Source): Value {
  if ('data' in source) return source
  const { dtype, data } = resident(source.resident)
  const size = source.shape.reduce((a, b) => a * b, 1)
  const offset = source.offset ?? 0
  if (offset + size > data.length) throw new Error(`resident buffer ${source.resident} ends before ${offset + size}`)
  return { dtype, data: data.subarray(offset, offset + size), shape: source.shape }
}

/** Parts of resident buffers by the names of the program's inputs or outputs. */
function allGiven(parts: Record<string, Resident>): Record<string, Value> {
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, given(part)]))
}

/** Sessions do not hold on to a buffer that is gone. */
function forget(name: string): void {
  for (const [session, names] of bound) {
    if (!names.has(name)) continue
    sessions.get(session)?.bind({}, {})
    bound.delete(session)
  }
}

function openSession(name: string): Session {
  const session = sessions.get(name)
  if (!session) throw new Error(`no session ${name}`)
  return session
}

/** Does what a request asks, and returns what the answer holds. */
function handle(request: Request): Answer {
  switch (request.kind) {
    case 'weight': {
      const weights = waiting.get(request.session) ?? []
      weights.push(holdWeight(request.weight))
      waiting.set(request.session, weights)
      return undefined
    }
    case 'load': {
      const weights = waiting.get(request.session) ?? []
      sessions.set(request.session, createSession(request.model, { threads, device, ...request.options, weights }))
      waiting.delete(request.session)
      return undefined
    }
    case 'unload': {
      for (const weight of waiting.get(request.session) ?? []) weight.release()
      waiting.delete(request.session)
      sessions.get(request.session)?.release()
      sessions.delete(request.session)
      bound.delete(request.session)
      return undefined
    }
    case 'close': {
      // What is not a JavaScript object does not go with the thread.
      for (const session of sessions.values()) session.release()
      sessions.clear()
      return undefined
    }
    case 'allocate': {
      forget(request.name)
      const data = request.data ?? new arrays[request.dtype](request.size)
      residents.set(request.name, { dtype: request.dtype, data })
      return undefined
    }
    case 'resize': {
      for (const name of request.names) {
        forget(name)
        const data = new arrays[request.dtype](request.size)
        for (const { from, to, length } of request.moves)
          data.set(resident(name).data.subarray(from, from + length) as never, to)
        residents.set(name, { dtype: request.dtype, data })
      }
      return undefined
    }
    case 'free': {
      for (const name of request.names) {
        forget(name)
        residents.delete(name)
      }
      return undefined
    }
    case 'read': {
      const { data } = resident(request.name)
      const offset = request.offset ?? 0
      return data.slice(offset, offset + (request.length ?? data.length))
    }
    case 'write': {
      resident(request.name).data.set(request.data as never, request.offset ?? 0)
      return undefined
    }
    case 'move': {
      for (const [i, name] of request.names.entries()) {
        const { data } = resident(name)
        const target = resident(request.to[i]).data
        for (const { from, to, length } of request.moves) target.set(data.subarray(from, from + length) as never, to)
      }
      return undefined
    }
    case 'endProfiling': {
      sessions.get(request.session)?.endProfiling()
      return undefined
    }
    case 'memory':
      return process.memoryUsage.rss()
    case 'bind': {
      const session = openSession(request.session)
      session.bind(allGiven(request.feeds), allGiven(request.fetches))
      const parts = [...Object.values(request.feeds), ...Object.values(request.fetches)]
      bound.set(request.session, new Set(parts.map((part) => part.resident)))
      return undefined
    }
    case 'run': {
      const session = openSession(request.session)
      const feeds: Record<string, Value> = {}
      for (const [name, source] of Object.entries(request.feeds)) feeds[name] = given(source)
      const fetches: Record<string, Value | null> = {}
      for (const [name, target] of Object.entries(request.fetches)) fetches[name] = target ? given(target) : null
      return session.run(feeds, fetches, (results) => {
        const outputs: Record<string, TensorData> = {}
        for (const [name, result] of Object.entries(results)) outputs[name] = { ...result, data: result.data.slice() }
        return outputs
      })
    }
  }
}

/** Buffers that may move to the main thread instead of being copied. */
function transferable(answer: Answer): ArrayBuffer[] {
  if (ArrayBuffer.isView(answer)) return [answer.buffer as ArrayBuffer]
  if (typeof answer === 'object') return Object.values(answer).map((output) => output.data.buffer as ArrayBuffer)
  return []
}

port.on('message', ({ id, request }: { id: number; request: Request }) => {
  try {
    const value = handle(request)
    port.postMessage({ id, value }, transferable(value))
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    port.postMessage({ id, error: message, user: error instanceof DeviceError })
  }
})
