// The thread in which a model's process compiles constraints: what is generated goes on beside it.
import { parentPort } from 'node:worker_threads'
import { UserError } from '../../core/types.ts'
import { type ConstraintSource, compileProgram, type Program } from '../../decode/index.ts'

export type Compiled = { program: Program } | { error: string; user: boolean }

parentPort!.on('message', (source: ConstraintSource) => parentPort!.postMessage(compiled(source)))

function compiled(source: ConstraintSource): Compiled {
  try {
    return { program: compileProgram(source) }
  } catch (error) {
    const user = error instanceof UserError
    return { error: user ? error.message : String((error as Error).stack ?? error), user }
  }
}
