// API keys: who a request is from, and how much each may ask. Keys are known by their SHA-256 alone: they are random and
// long, so a slow hash would add nothing.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { KeyConfig } from './config.ts'
import { ApiError } from './errors.ts'

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()

/** A new key of 256 random bits, and what of it belongs into the configuration. */
export function newKey(): { key: string; sha256: string } {
  const key = `unmask-${randomBytes(32).toString('base64url')}`
  return { key, sha256: hashKey(key) }
}

export const hashKey = (key: string): string => sha256(key).toString('hex')

export interface Authenticator {
  readonly open: boolean
  /** Name of the key in the Authorization header. Throws 401. */
  identify(authorization: string | undefined): KeyConfig
}

export function createAuthenticator(keys: readonly KeyConfig[]): Authenticator {
  const known = keys.map((key) => ({ key, hash: Buffer.from(key.sha256, 'hex') }))
  return {
    open: keys.length === 0,
    identify(authorization) {
      const given = /^Bearer +(\S{1,512})$/i.exec(authorization ?? '')?.[1]
      if (given === undefined)
        throw new ApiError(401, 'an API key is needed: Authorization: Bearer KEY', { code: 'missing_api_key' })
      const hash = sha256(given)
      let found: KeyConfig | undefined
      // Every key is compared, so that the time does not reveal which matches.
      for (const entry of known) if (timingSafeEqual(entry.hash, hash)) found = entry.key
      if (!found) throw new ApiError(401, 'the API key is not known', { code: 'invalid_api_key' })
      return found
    },
  }
}

/** Counts the requests of each key. Both limits answer 429. */
export function createKeyLimits(): { enter(key: KeyConfig): () => void } {
  const state = new Map<string, { running: number; recent: number[] }>()
  return {
    enter({ name, concurrency, requests_per_minute: perMinute }) {
      const entry = state.get(name) ?? { running: 0, recent: [] }
      state.set(name, entry)
      const now = performance.now()
      entry.recent = entry.recent.filter((time) => now - time < 60_000)
      if (perMinute !== undefined && entry.recent.length >= perMinute)
        throw new ApiError(429, `this key may send ${perMinute} requests a minute`, {
          code: 'rate_limit_exceeded',
          retryAfter: Math.max(1, Math.ceil((60_000 - (now - entry.recent[0]!)) / 1000)),
        })
      if (concurrency !== undefined && entry.running >= concurrency)
        throw new ApiError(429, `this key may have ${concurrency} requests at a time`, {
          code: 'rate_limit_exceeded',
          retryAfter: 1,
        })
      if (perMinute !== undefined) entry.recent.push(now)
      entry.running++
      let left = false
      return () => {
        if (!left) entry.running--
        left = true
      }
    },
  }
}
