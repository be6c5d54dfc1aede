// Weights and moments as files of a folder: `model.safetensors` or shards with an index, and `optimizer.safetensors`.
// Knows tensors by name only.
import { join } from 'node:path'
import { exists } from '../checkpoint/file.ts'
import { openSafetensors, type SafetensorsFile } from '../checkpoint/safetensors.ts'
import { writeSafetensors, writeShardedSafetensors } from '../checkpoint/safetensors-write.ts'
import type { Parameter, StoredParameter } from '../core/types.ts'
import type { Stepper } from './stepper.ts'
import type { Trainer } from './types.ts'

const optimizerFile = 'optimizer.safetensors'

/** Opens the weights of a folder in Hugging Face layout: model.safetensors, or the index of its shards. */
export async function openWeights(folder: string): Promise<SafetensorsFile> {
  const index = join(folder, 'model.safetensors.index.json')
  return openSafetensors((await exists(index)) ? index : join(folder, 'model.safetensors'))
}

export const openOptimizer = (folder: string): Promise<SafetensorsFile> => openSafetensors(join(folder, optimizerFile))

/** The weights of a folder, which are read when they are used. */
export const storedWeights = async (folder: string) => storedTensors(await openWeights(folder))

export const storedMoments = async (folder: string) => storedTensors(await openOptimizer(folder))

async function storedTensors(file: SafetensorsFile): Promise<Map<string, StoredParameter<Parameter>>> {
  await file.close()
  return new Map(
    [...file.tensors.values()].map(({ name, shape }) => [
      name,
      { shape, format: undefined, read: async () => ({ shape, data: await file.read(name) }) },
    ]),
  )
}

/** `save` and `restore` of a trainer whose weights lie in this process. */
export function trainedFiles(
  state: Pick<Stepper, 'parameters' | 'optimizerState' | 'fill'>,
): Pick<Trainer, 'save' | 'restore'> {
  return {
    // One after the other, so that only one of them is held here.
    async save(folder) {
      const { step, tensors } = await state.optimizerState()
      await writeSafetensors(join(folder, optimizerFile), tensors)
      await writeShardedSafetensors(folder, await state.parameters())
      return step
    },
    async restore(folder, step) {
      const optimizer = { step, tensors: await storedMoments(folder) }
      await state.fill({ parameters: await storedWeights(folder), optimizer })
    },
  }
}
