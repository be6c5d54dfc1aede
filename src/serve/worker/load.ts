// Loads the model that a process serves.
import { loadAdapterFor, loadForInference } from '../../checkpoint/load.ts'
import { createExecutor } from '../../runtime/onnxruntime/executor.ts'
import { createGenerator } from '../../text/generator.ts'
import { createCompiling } from './compiling.ts'
import { type ServedModel, servedModel } from './model.ts'
import type { WorkerSettings } from './protocol.ts'

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
  const compiling = createCompiling(generator.constraint)
  return servedModel(loaded, generator, {
    compile: compiling.compile,
    async dispose() {
      await compiling.close()
      await generator.dispose()
      await executor.dispose()
    },
  })
}
