// Low-rank weights of a run: which a recipe asks for, and what becomes of them when they are trained. Composes the model's
// layers and the checkpoint's; knows no objective.
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { isAdapterFolder } from '../checkpoint/adapted.ts'
import { saveModelAdapter } from '../checkpoint/adapter.ts'
import { lastingSource } from '../checkpoint/hub.ts'
import { openCheckpoint, pull } from '../checkpoint/index.ts'
import type { LoadedModel } from '../checkpoint/load.ts'
import {
  type InferenceParameter,
  type InitialParameter,
  type ModelConfig,
  type Parameter,
  SettingError,
  valuesOf,
} from '../core/types.ts'
import { defaultTargetModules, initialLora, initialMagnitudes, type LoraOptions, loraShapes } from '../models/lora.ts'
import type { Model } from '../models/types.ts'
import { type Recipe, RecipeError } from './recipe.ts'

/** Low-rank weights of a run. */
export interface LowRankWeights {
  parameters: Map<string, Parameter>
  /** What their products are multiplied with. */
  scale: number
}

/** What a section of a recipe calls the settings of low-rank weights. */
const keys: Readonly<Record<string, string>> = { rank: 'rank', targetModules: 'target_modules' }

/** `loraShapes` for a section of a recipe. Throws RecipeError where the model cannot have them. */
export function lowRankShapes(model: Model, options: LoraOptions, section: 'lora' | 'adapter') {
  try {
    return loraShapes(model, options)
  } catch (error) {
    if (!(error instanceof SettingError)) throw error
    const nameOf = (name: string) => `${section}.${keys[name] ?? name}`
    throw new RecipeError([{ path: nameOf(error.settings[0]), message: error.problemIn(nameOf) }])
  }
}

/**
 * Low-rank weights as the recipe has them, which change nothing yet; undefined where the model itself is trained. Throws
 * RecipeError where the model cannot have them.
 */
export async function lowRank(
  { model: source, lora, train }: Pick<Recipe, 'model' | 'lora'> & { train: Pick<Recipe['train'], 'seed'> },
  { model, parameters: base }: Pick<LoadedModel<InferenceParameter>, 'model' | 'parameters'>,
): Promise<LowRankWeights | undefined> {
  const { rank, dora } = lora
  if (rank === 0) return undefined
  if (await isAdapterFolder((await pull(source)).path))
    throw new RecipeError([
      {
        path: 'lora.rank',
        message: `${source} is an adapter itself; train on the model that it makes: the folder model beside it, or what unmask merge writes`,
      },
    ])
  const targetModules = lora.target_modules ?? defaultTargetModules(model)
  const shapes = lowRankShapes(model, { rank, targetModules, dora, maskEmbedding: false }, 'lora')
  const matrices = initialLora(shapes, undefined, train.seed)
  const magnitudes = await initialMagnitudes(shapes, base)
  return { parameters: new Map([...matrices, ...magnitudes]), scale: lora.lora_alpha / rank }
}

export const adapterFolder = ({ output_dir }: Pick<Recipe, 'output_dir'>): string => join(output_dir, 'adapter')

/**
 * Saves trained low-rank weights under `output_dir/adapter`, and returns the model that they make of the base, in float32, each
 * tensor read when it is taken.
 */
export async function withAdapter(
  { output_dir, model: base, lora }: Pick<Recipe, 'output_dir' | 'model' | 'lora'>,
  {
    loaded,
    weights,
    baseConfig,
  }: {
    loaded: Omit<LoadedModel, 'parameters'>
    weights: ReadonlyMap<string, InitialParameter>
    baseConfig: ModelConfig
  },
): Promise<Map<string, InitialParameter>> {
  const folder = adapterFolder({ output_dir })
  const parameters = new Map<string, Parameter>()
  for (const [name, parameter] of weights) parameters.set(name, await valuesOf(parameter))
  const { model, generationConfig } = loaded
  const modelConfig = Object.fromEntries(
    Object.entries(model.config).filter(([key, value]) => !isDeepStrictEqual(value, baseConfig[key])),
  )
  const config = {
    ...{ base: await lastingSource(base), modelConfig, rank: lora.rank, alpha: lora.lora_alpha, dora: lora.dora },
    targetModules: lora.target_modules ?? defaultTargetModules(model),
  }
  await saveModelAdapter(folder, { config, parameters, generationConfig })
  // What others will read.
  const checkpoint = await openCheckpoint(folder)
  await checkpoint.close()
  return new Map(
    [...model.parameters].map(([name, shape]) => [
      name,
      { shape, format: undefined, read: async () => ({ shape, data: await checkpoint.read(name) }) },
    ]),
  )
}
