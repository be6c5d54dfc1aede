// The audit log: one JSON line for every prompt and answer that was judged. Texts and addresses go in as keyed hashes, by which
// those who hold the key can look for a text, and nobody else can recognise one.
import { createHmac, randomBytes } from 'node:crypto'
import { appendFile } from 'node:fs/promises'

export interface AuditEntry {
  request: string
  client: string
  model: string
  direction: 'prompt' | 'answer'
  /** `pass`, or the most that was done. */
  action: 'pass' | 'flag' | 'redact' | 'block'
  categories: Record<string, number>
  rules: string[]
  text: string
}

export interface Audit {
  write(entry: AuditEntry): void
  /** Resolves when all lines are written. */
  close(): Promise<void>
}

export interface AuditOptions {
  file: string
  /** Texts as they are, instead of hashed. */
  plain: boolean
  /** Secret of the hashes; without one they can only be compared within a run. */
  key?: string
  onError(error: unknown): void
}

export function createAudit({ file, plain, key, onError }: AuditOptions): Audit {
  const secret = key ?? randomBytes(32)
  const hash = (text: string) => createHmac('sha256', secret).update(text).digest('hex')
  let waiting: string[] = []
  let writing = Promise.resolve()

  async function flush(): Promise<void> {
    const lines = waiting.join('')
    waiting = []
    // Opened anew each time, so that whoever rotates files may move it away.
    if (lines !== '') await appendFile(file, lines, { mode: 0o600 }).catch(onError)
  }

  return {
    write({ client, text, ...entry }) {
      const { length } = text
      const said = plain ? { client, text } : { client_hash: hash(client), text_hash: hash(text) }
      waiting.push(`${JSON.stringify({ time: new Date().toISOString(), ...entry, ...said, characters: length })}\n`)
      if (waiting.length === 1) writing = writing.then(flush)
    },
    close: () => writing,
  }
}
