// A contestant in a process of its own: it gets one command per line and answers each with one line of JSON.
// The first line it prints says that it is ready and who it is.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Child {
  /** Name and version, as the child gives them. */
  name: string
  pid: number
  ask<T>(command: string): Promise<T>
  /** Lets the child end by itself. */
  close(): Promise<void>
}

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Starts a program and waits until it is ready. Throws where it ends first; its own error is on stderr. */
export async function startChild(command: string, args: readonly string[]): Promise<Child> {
  const child = spawn(command, args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<never>((_, reject) => {
    child.once('error', (error) => reject(new Error(`${command}: ${error.message}`)))
    child.once('exit', (code, signal) => reject(new Error(`${command} ${args.join(' ')} ended with ${code ?? signal}`)))
  })
  const closed = ended.catch(() => undefined)
  // Writing to a child that has ended fails too; `ended` says it better.
  child.stdin.on('error', () => undefined)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = async (): Promise<Record<string, unknown>> => {
    const next = await Promise.race([lines.next(), ended])
    return next.done ? await ended : JSON.parse(next.value)
  }
  const { name } = (await answer()) as { name: string }
  return {
    name,
    pid: child.pid as number,
    async ask<T>(line: string) {
      child.stdin.write(`${line}\n`)
      return (await answer()) as T
    },
    async close() {
      child.stdin.end()
      await closed
    },
  }
}

/** Starts a TypeScript file of this folder. */
export const startOwn = (file: string, args: readonly string[]): Promise<Child> =>
  startChild(process.execPath, ['--import', 'tsx', fileURLToPath(new URL(file, import.meta.url)), ...args])

/** The other side: says who this is, then answers commands until the input ends. */
export async function serve(name: string, handle: (command: string) => Promise<object>): Promise<void> {
  const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`)
  say({ name })
  for await (const line of createInterface({ input: process.stdin })) say(await handle(line.trim()))
}
