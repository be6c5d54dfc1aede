// Opening a model on Node: its files, an executor, the generator.

import { type InferenceModel, loadAdapterFor, loadForInference } from '../checkpoint/load.ts'
import type { Device } from '../core/types.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import type { ChatMessage } from '../tokenizer/types.ts'
import type { Writing } from './assemble.ts'
import { createGenerator, type GeneratorOptions } from './generator.ts'
import { modelOf, type OpenModel, type WriteSettings } from './model.ts'

export interface OpenOptions extends Omit<GeneratorOptions, 'adapter'> {
  /** Folder of an adapter that drafts what the model writes. */
  adapter?: string
  /** Threads of the executor. Default: the cores of the machine. */
  threads?: number
  /** Default `cpu`. Throws UserError where the machine has no such device. */
  device?: Device
  /** Ends loading. */
  signal?: AbortSignal
}

/**
 * Loads a model to ask it: a folder, a .gguf or .safetensors file, the Hub or a Python package (see `pull`).
 *
 * @example
 * const model = await openModel('models/tiny')
 * for await (const { added } of model.generate('reverse(stone)=')) process.stdout.write(added)
 * await model.dispose()
 */
export async function openModel(source: string, options: OpenOptions = {}): Promise<OpenModel> {
  const { adapter, threads, device, signal, ...rest } = options
  const loaded = await loadForInference(source, { signal })
  const executor = createExecutor({ threads, device })
  try {
    const generator = await createGenerator(executor, loaded, {
      ...rest,
      adapter: adapter === undefined ? undefined : await loadAdapterFor(loaded.model, adapter),
    })
    return modelOf(loaded, generator, () => executor.dispose())
  } catch (error) {
    await executor.dispose()
    throw error
  }
}

export type GenerateOptions = WriteSettings & Pick<OpenOptions, 'mode' | 'blockSize' | 'threads' | 'device'>

/**
 * Answers one prompt with a model whose files have been read, for scripts that want one answer. Its session is of this call
 * alone; to ask again and again, keep an `openModel`.
 */
export async function* generate(
  loaded: InferenceModel,
  prompt: string | readonly ChatMessage[],
  { threads, device, mode, blockSize, ...settings }: GenerateOptions = {},
): Writing {
  const executor = createExecutor({ threads, device })
  try {
    const model = modelOf(loaded, await createGenerator(executor, loaded, { mode, blockSize }), () =>
      executor.dispose(),
    )
    return yield* typeof prompt === 'string' ? model.generate(prompt, settings) : model.chat(prompt, settings)
  } finally {
    await executor.dispose()
  }
}
