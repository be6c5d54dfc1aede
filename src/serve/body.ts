// Reads a request: its size, its encodings, its nesting and its shape, in that order, each before the next costs anything.
import { promisify } from 'node:util'
import { brotliDecompress, gunzip, type InputType, inflate, type ZlibOptions } from 'node:zlib'
import type { Context } from 'hono'
import type * as z from 'zod'
import { check } from '../formats/check.ts'
import type { Limits } from './config.ts'
import { ApiError, badRequest } from './errors.ts'
import type { Env } from './routes/settings.ts'
import { afterRest } from './scheduler.ts'

/** Bytes of a body from which on reading it may hold up everybody else. */
const LARGE = 1 << 15

/** Reads and checks a JSON body. Throws ApiError, with the field where it is one's fault. */
export async function readBody<S extends z.ZodType>(c: Context<Env>, schema: S, limits: Limits): Promise<z.output<S>> {
  const type = c.req.header('content-type') ?? ''
  // A form or plain text is what a page of another origin could send without asking.
  if (!/^application\/json\s*(;|$)/i.test(type))
    throw unsupported('the body must be JSON: Content-Type: application/json')
  const charset = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(type)?.[1] ?? 'utf-8'
  if (!/^(utf-?8|us-ascii)$/i.test(charset)) throw unsupported(`the body must be UTF-8, not charset ${charset}`)
  const bytes = await readDecoded(c.req.raw, limits.body_bytes)
  if (bytes.length < LARGE) return parse(bytes, schema, limits)
  const { reading, client, gone } = c.var
  const release = await reading.acquire(client, gone.signal)
  const since = performance.now()
  try {
    return parse(bytes, schema, limits)
  } finally {
    afterRest(release, since)
  }
}

function parse<S extends z.ZodType>(bytes: Uint8Array, schema: S, limits: Limits): z.output<S> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw badRequest('the body is not valid UTF-8')
  }
  if (deeperThan(text, limits.json_depth))
    throw badRequest(`the body is nested deeper than ${limits.json_depth} levels`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw badRequest('the body is not valid JSON')
  }
  const result = check(schema, value)
  if ('data' in result) return result.data
  const { path, message } = result.problems[0]!
  throw badRequest(path.length > 0 ? `${fieldName(path)}: ${message}` : message, fieldName(path) || null)
}

const unsupported = (message: string) => new ApiError(415, message, { code: 'unsupported_media_type' })

const tooLarge = (most: number) =>
  new ApiError(413, `the body is larger than ${most} bytes`, { code: 'body_too_large' })

type Decoder = (body: InputType, options: ZlibOptions) => Promise<Buffer>

/** By their names in Content-Encoding. */
const decoders = new Map<string, Decoder>([
  ['gzip', promisify(gunzip)],
  ['x-gzip', promisify(gunzip)],
  ['deflate', promisify(inflate)],
  ['br', promisify(brotliDecompress)],
])

/** The body as it was before it was compressed, of at most `most` bytes then as now. */
async function readDecoded(request: Request, most: number): Promise<Uint8Array> {
  const coding = (request.headers.get('content-encoding') ?? 'identity').trim().toLowerCase()
  const decode = decoders.get(coding)
  if (coding !== 'identity' && !decode)
    throw unsupported(`Content-Encoding ${coding} is not supported: send gzip, deflate, br or none`)
  const bytes = await readBytes(request, most)
  if (!decode) return bytes
  try {
    return await decode(bytes, { maxOutputLength: most })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(most)
    throw badRequest(`the body is not valid ${coding}`)
  }
}

async function readBytes(request: Request, most: number): Promise<Uint8Array> {
  if (Number(request.headers.get('content-length') ?? 0) > most) throw tooLarge(most)
  const chunks: Uint8Array[] = []
  let size = 0
  try {
    for await (const chunk of (request.body ?? []) as AsyncIterable<Uint8Array>) {
      size += chunk.length
      if (size > most) throw tooLarge(most)
      chunks.push(chunk)
    }
  } catch (error) {
    if (error instanceof ApiError) throw error
    throw new ApiError(408, 'the body did not arrive in time or as it was announced', { code: 'incomplete_body' })
  }
  return Buffer.concat(chunks)
}

/** Whether brackets outside strings nest deeper than `most`; it may be no JSON at all. */
export function deeperThan(text: string, most: number): boolean {
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (inString) {
      if (code === 0x5c) i++
      else if (code === 0x22) inString = false
    } else if (code === 0x22) inString = true
    else if (code === 0x5b || code === 0x7b) {
      if (++depth > most) return true
    } else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}

/** A path as OpenAI writes it: messages[0].content. */
function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    '',
  )
}
