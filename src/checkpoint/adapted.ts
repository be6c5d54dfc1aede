// A model that is an adapter: a folder in PEFT's layout, whose low-rank weights are added to those of the base that it names.
import { join } from 'node:path'
import { ConfigError, type ModelConfig, UserError } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { fuse, type LowRank, partnersOf } from '../models/lora.ts'
import { adapterConfigFile, readModelAdapter, readModelAdapterConfig } from './adapter.ts'
import { exists } from './file.ts'
import { readGenerationConfig } from './huggingface.ts'
import { plainConfig } from './quantized.ts'
import type { Checkpoint, TensorInfo } from './types.ts'

/** Whether a path is the folder of an adapter and of nothing else. */
export const isAdapterFolder = async (path: string): Promise<boolean> =>
  (await exists(join(path, adapterConfigFile))) && !(await exists(join(path, 'config.json')))

/**
 * The base with the adapter of a folder in it. The matrices that it changes are float32; the others stay as the base has them.
 * Closing it closes the base. Throws UserError where it does not fit.
 */
export async function adapted(folder: string, base: Checkpoint): Promise<Checkpoint> {
  const settings = await readModelAdapterConfig(folder)
  const config = changedConfig(folder, base, settings.modelConfig)
  const parameters = await readModelAdapter(folder, settings)
  const scale = settings.alpha / settings.rank
  const changed = new Map<string, LowRank>()
  for (const [name, a] of parameters) {
    if (!name.endsWith('.lora_A.weight')) continue
    const partners = partnersOf(name)
    const lowRank = { a, b: parameters.get(partners.b)!, magnitude: parameters.get(partners.magnitude) }
    const { weight } = partners
    const wanted = [lowRank.b.shape[0]!, a.shape[1]!]
    const tensor = base.tensors.get(weight)
    if (!tensor) throw new UserError(`${folder}: changes ${weight}, which ${base.path} does not have`)
    if (tensor.shape.join() !== wanted.join())
      throw new UserError(
        `${folder}: changes ${weight} of the shape [${wanted.join(', ')}], which is [${tensor.shape.join(', ')}] in ${base.path}`,
      )
    if (lowRank.magnitude && lowRank.magnitude.shape[0] !== wanted[0])
      throw new UserError(
        `${folder}: gives ${lowRank.magnitude.shape[0]} rows of ${weight} a length, which has ${wanted[0]} in ${base.path}`,
      )
    changed.set(weight, lowRank)
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
    config,
    ...(generation.generationConfig ? generation : {}),
    tensors,
    async read(name) {
      const values = await base.read(name)
      const lowRank = changed.get(name)
      if (lowRank) fuse(values, lowRank, scale)
      return values
    },
    map: async (name) => (changed.has(name) ? undefined : base.map(name)),
  }
}

/**
 * The base's config with what an adapter changes in it. It says nothing of how matrices are stored, which is not the same for
 * all. Throws UserError where the base alone makes sense and the changed config does not.
 */
function changedConfig(folder: string, base: Checkpoint, changes: Readonly<Record<string, unknown>>): ModelConfig {
  const config = { ...plainConfig(base.config), ...changes } as ModelConfig
  if (problemOf(base.config) !== undefined) return config
  const problem = problemOf(config)
  if (problem !== undefined) throw new UserError(`${join(folder, adapterConfigFile)}: model_config: ${problem}`)
  return config
}

/** What is wrong with a config; undefined where it makes sense. */
function problemOf(config: ModelConfig): string | undefined {
  try {
    createModel(config)
    return undefined
  } catch (error) {
    if (error instanceof ConfigError) return error.problem
    throw error
  }
}
