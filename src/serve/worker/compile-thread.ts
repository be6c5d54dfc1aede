// The thread in which a model's process compiles constraints: what is generated goes on beside it.
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { UserError } from '../../core/types.ts'
import { type CompiledConstraint, type ConstraintSource, compileSource } from '../../decode/index.ts'

// Where this means the thread and not its process: threads that pass tokens on are not to wait for it.
if (process.platform === 'linux') setPriority(0, 5)

export interface ToCompile {
  source: ConstraintSource
  /** See `compileSource`. */
  usable: Uint8Array
}

export type Compiled = { constraint: CompiledConstraint } | { error: string; user: boolean }

parentPort!.on('message', (given: ToCompile) => {
  const result = compiled(given)
  // Arrays change hands: to copy them would take time of who asks.
  const arrays = 'constraint' in result ? [result.constraint.program, result.constraint.ways].flatMap(arraysOf) : []
  parentPort!.postMessage(result, arrays)
})

const arraysOf = (part: object): ArrayBuffer[] =>
  Object.values(part).flatMap((value) => (ArrayBuffer.isView(value) ? [value.buffer as ArrayBuffer] : []))

function compiled({ source, usable }: ToCompile): Compiled {
  try {
    return { constraint: compileSource(source, usable) }
  } catch (error) {
    const user = error instanceof UserError
    return { error: user ? error.message : String((error as Error).stack ?? error), user }
  }
}
