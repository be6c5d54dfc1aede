// Loads the model that a process serves.
import { loadAdapterFor, loadForInference } from '../../checkpoint/load.ts'
import { UserError } from '../../core/types.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { createGenerator } from '../../text/generator.ts'
import { createCompiling } from './compiling.ts'
import { type ServedModel, servedModel } from './model.ts'
import type { WorkerSettings } from './protocol.ts'
import { createTurns } from './turns.ts'

/** Loads a model. Throws UserError where that cannot be done. */
export async function createServedModel(settings: WorkerSettings): Promise<ServedModel> {
  const loaded = await loadForInference(settings.path)
  const executor = createExecutor({
    threads: settings.threads,
    device: settings.device,
  })
  const generator = await createGenerator(executor, loaded, {
    mode: settings.mode,
    blockSize: settings.blockSize,
    ...(settings.adapter ? { adapter: await loadAdapterFor(loaded.model, settings.adapter) } : {}),
    keepPrefixes: settings.keepPrefixes,
  })
  try {
    // A large one takes tenths of a second, in which no text would go on later.
    generator.vocabulary()
  } catch (error) {
    // Said to who asks for a constraint.
    if (!(error instanceof UserError)) throw error
  }
  const compiling = createCompiling(generator.vocabulary)
  const turnsOf = createTurns()
  return servedModel(loaded, generator, {
    async compile(source, client, signal) {
      const constraint = await compiling.compile(source, client, signal)
      return constraint.inTurns(turnsOf(client, signal))
    },
    async dispose() {
      await compiling.close()
      await generator.dispose()
      await executor.dispose()
    },
  })
}
