// The worker that owns ONNX Runtime: sessions, and buffers that stay here between runs ("resident").
// Plain JavaScript, so that a thread can be started from it in source and in the built package alike.
// It knows no models: it loads ONNX bytes, runs them and moves values.
import { parentPort, workerData } from 'node:worker_threads'
import { arrays, createSession, createWeight, DeviceError } from './ort.js'

/** @typedef {import('./protocol.ts').Request} Request */
/** @typedef {import('./protocol.ts').Source} Source */

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort)

/** @type {Map<string, ReturnType<typeof createSession>>} */
const sessions = new Map()
/** Weights of sessions that are not loaded yet. @type {Map<string, ReturnType<typeof createWeight>[]>} */
const waiting = new Map()
/** @type {Map<string, { dtype: import('../types.ts').DType, data: import('../types.ts').TypedArray }>} */
const residents = new Map()
/** Names of the resident buffers that are bound, by session. @type {Map<string, Set<string>>} */
const bound = new Map()

/** @param {string} name */
function resident(name) {
  const found = residents.get(name)
  if (!found) throw new Error(`no resident buffer ${name}`)
  return found
}

/**
 * The values of a request or part of a resident buffer, without a copy.
 * @param {Source} source
 */
function given(source) {
  if ('data' in source) return source
  const { dtype, data } = resident(source.resident)
  const size = source.shape.reduce((a, b) => a * b, 1)
  const offset = source.offset ?? 0
  if (offset + size > data.length) throw new Error(`resident buffer ${source.resident} ends before ${offset + size}`)
  return { dtype, data: data.subarray(offset, offset + size), shape: source.shape }
}

/**
 * Parts of resident buffers by the names of the program's inputs or outputs.
 * @param {Record<string, import('./protocol.ts').Resident>} parts
 */
function allGiven(parts) {
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, given(part)]))
}

/** Sessions do not hold on to a buffer that is gone. @param {string} name */
function forget(name) {
  for (const [session, names] of bound) {
    if (!names.has(name)) continue
    sessions.get(session)?.bind({}, {})
    bound.delete(session)
  }
}

/** @param {Request} request */
function handle(request) {
  switch (request.kind) {
    case 'weight': {
      const weights = waiting.get(request.session) ?? []
      weights.push(createWeight(request.weight))
      waiting.set(request.session, weights)
      return undefined
    }
    case 'load': {
      const weights = waiting.get(request.session) ?? []
      sessions.set(request.session, createSession(request.model, { ...workerData, ...request.options, weights }))
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
          data.set(/** @type {never} */ (resident(name).data.subarray(from, from + length)), to)
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
      resident(request.name).data.set(/** @type {never} */ (request.data), request.offset ?? 0)
      return undefined
    }
    case 'move': {
      for (const name of request.names) {
        const { data } = resident(name)
        for (const { from, to, length } of request.moves) data.copyWithin(to, from, from + length)
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
      /** @type {Record<string, import('./ort.js').Value>} */
      const feeds = {}
      for (const [name, source] of Object.entries(request.feeds)) feeds[name] = given(source)
      /** @type {Record<string, import('./ort.js').Value | null>} */
      const fetches = {}
      for (const [name, target] of Object.entries(request.fetches)) fetches[name] = target ? given(target) : null
      return session.run(feeds, fetches, (results) => {
        /** @type {Record<string, import('../types.ts').TensorData>} */
        const outputs = {}
        for (const [name, result] of Object.entries(results))
          outputs[name] = { ...result, data: /** @type {never} */ (result.data.slice()) }
        return outputs
      })
    }
  }
}

/** @param {string} name */
function openSession(name) {
  const session = sessions.get(name)
  if (!session) throw new Error(`no session ${name}`)
  return session
}

/** Buffers that may move to the main thread instead of being copied. */
/** @param {unknown} value @returns {ArrayBuffer[]} */
function transferable(value) {
  if (ArrayBuffer.isView(value)) return [/** @type {ArrayBuffer} */ (value.buffer)]
  if (value && typeof value === 'object')
    return Object.values(value).map((output) => /** @type {ArrayBuffer} */ (output.data.buffer))
  return []
}

port.on('message', (/** @type {{ id: number, request: Request }} */ { id, request }) => {
  try {
    const value = handle(request)
    port.postMessage({ id, value }, transferable(value))
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    port.postMessage({ id, error: message, user: error instanceof DeviceError })
  }
})
