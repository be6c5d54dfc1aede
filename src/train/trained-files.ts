// Weights and moments as files of a folder: `model.safetensors` or shards with an index, and `optimizer.safetensors`.
// Knows tensors by name only.
import { join } from 'node:path'
import { exists } from '../checkpoint/file.ts'
import { openSafetensors, type SafetensorsFile } from '../checkpoint/safetensors.ts'
import { writeSafetensors, writeShardedSafetensors } from '../checkpoint/safetensors-write.ts'
import { type Parameter, type StoredParameter, UserError } from '../core/types.ts'
import type { Stepper } from './stepper.ts'
import type { Trainer } from './types.ts'

const optimizerFile = 'optimizer.safetensors'

/** Opens the weights of a folder in Hugging Face layout: model.safetensors, or the index of its shards. */
export async function openWeights(folder: string): Promise<SafetensorsFile> {
  const index = join(folder, 'model.safetensors.index.json')
  return openSafetensors((await exists(index)) ? index : join(folder, 'model.safetensors'))
}

/** Moments, and weights once more, of a checkpoint that several processes of PyTorch wrote. The file comes last. */
const distributedState = join('distributed', '.metadata')

/** Opens the moments of a folder. Throws UserError where only the processes that wrote them can read them. */
async function openOptimizer(folder: string): Promise<SafetensorsFile> {
  if (await exists(join(folder, distributedState)))
    throw new UserError(`${folder} was saved by several processes of PyTorch; resume it with executor: torch`)
  return openSafetensors(join(folder, optimizerFile))
}

/** Throws UserError where weights or moments of a folder are missing, or not whole. */
export async function checkTrainedFiles(folder: string): Promise<void> {
  await (await openWeights(folder)).close()
  if (!(await exists(join(folder, distributedState)))) await (await openOptimizer(folder)).close()
}

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
