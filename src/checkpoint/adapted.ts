// A model that is an adapter: a folder in PEFT's layout, whose low-rank weights are added to those of the base that it names.
import { join } from 'node:path'
import { UserError } from '../core/types.ts'
import { addLowRank, projectionOf } from '../models/lora.ts'
import { adapterConfigFile, readModelAdapter, readModelAdapterConfig } from './adapter.ts'
import { exists } from './file.ts'
import { readGenerationConfig } from './huggingface.ts'
import type { Checkpoint, TensorInfo } from './types.ts'

/** Whether a path is the folder of an adapter and of nothing else. */
export const isAdapterFolder = async (path: string): Promise<boolean> =>
  (await exists(join(path, adapterConfigFile))) && !(await exists(join(path, 'config.json')))

/** The base with the adapter of a folder in it. Closing it closes the base. Throws UserError where it does not fit. */
export async function adapted(folder: string, base: Checkpoint): Promise<Checkpoint> {
  const config = await readModelAdapterConfig(folder)
  const parameters = await readModelAdapter(folder, config)
  const scale = config.alpha / config.rank
  const changed = new Map<string, { a: string; b: string }>()
  for (const [a, { shape }] of parameters) {
    const name = projectionOf(a)
    if (name === undefined) continue
    const b = a.replace('lora_A', 'lora_B')
    const wanted = [parameters.get(b)!.shape[0], shape[1]]
    const tensor = base.tensors.get(name)
    if (!tensor) throw new UserError(`${folder}: changes ${name}, which ${base.path} does not have`)
    if (tensor.shape.join() !== wanted.join())
      throw new UserError(
        `${folder}: changes ${name} of the shape [${wanted.join(', ')}], which is [${tensor.shape.join(', ')}] in ${base.path}`,
      )
    changed.set(name, { a, b })
  }
  const tensors = new Map<string, TensorInfo>()
  for (const [name, info] of base.tensors) {
    const { blocks, ...whole } = info
    tensors.set(name, changed.has(name) ? whole : info)
  }
  const generation = await readGenerationConfig(folder)
  return {
    ...base,
    path: folder,
    config: { ...base.config, ...config.modelConfig },
    ...(generation.generationConfig ? generation : {}),
    tensors,
    async read(name) {
      const values = await base.read(name)
      const lora = changed.get(name)
      if (lora) addLowRank(values, parameters.get(lora.a)!, parameters.get(lora.b)!, scale)
      return values
    },
    map: async (name) => (changed.has(name) ? undefined : base.map(name)),
  }
}
