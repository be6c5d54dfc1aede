// Opens whatever a model is stored as: a checkpoint, or an adapter with the base that it names.
import { adapted, isAdapterFolder } from './adapted.ts'
import { type PullOptions, pullBase } from './hub.ts'
import { openCheckpoint as openStored } from './huggingface.ts'
import type { Checkpoint } from './types.ts'

/**
 * Opens a checkpoint: a folder with config.json and safetensors (single or sharded) or with one .gguf file, one .safetensors
 * file (config.json beside it) or .gguf file, or the folder of an adapter in PEFT's layout, whose base is fetched where it is
 * not on this machine. Headers are read and checked, weights are not, but for an adapter's; the caller closes it. Throws
 * UserError, naming file and tensor, when something is missing or inconsistent.
 */
export async function openCheckpoint(path: string, options: PullOptions = {}): Promise<Checkpoint> {
  if (!(await isAdapterFolder(path))) return openStored(path)
  const opened = await openStored(await pullBase(path, options))
  try {
    return await adapted(path, opened)
  } catch (error) {
    await opened.close()
    throw error
  }
}
