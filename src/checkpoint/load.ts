// From a model's name to what the layers work with: its architecture, its weights and its tokenizer.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { random } from '../core/random.ts'
import {
  type InferenceParameter,
  type InitialParameter,
  type ModelConfig,
  type Parameter,
  SettingError,
  UserError,
} from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { createModel, type Model } from '../models/index.ts'
import { loraShapes } from '../models/lora.ts'
import { tokenizerFileNames } from '../tokenizer/files.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer/index.ts'
import { type Adapter, adapterConfigFile, loadAdapter } from './adapter.ts'
import { exists, readModelJson, readModelText } from './file.ts'
import { readGenerationConfig } from './huggingface.ts'
import { type Checkpoint, compareTensors, openCheckpoint, type PullOptions, pull } from './index.ts'
import { modelName } from './names.ts'

export interface LoadedModel<P extends InferenceParameter = Parameter> {
  /** Name for people: the last part of what was asked for, never a path. */
  name: string
  model: Model
  parameters: Map<string, P>
  tokenizer: Tokenizer
  generationConfig: Record<string, unknown> | undefined
  /** Where generation_config.json lies, for messages to who runs the model. */
  generationConfigPath?: string | undefined
}

export interface LoadOptions extends PullOptions {
  /** `random`: draw the weights from `seed` instead of reading them; the folder needs config.json and a tokenizer only. */
  init?: 'pretrained' | 'random'
  /** Seed of random weights. Default 0. */
  seed?: number
}

/** A model whose matrices may be quantised: one that is only run. */
export type InferenceModel = LoadedModel<InferenceParameter>

/**
 * Loads a model in float32, to train or to run it, from a folder, a .gguf or .safetensors file, the Hub or a Python
 * package (see `pull`). Throws UserError where the checkpoint cannot be read, lacks a tensor that the architecture
 * needs, or is a quantised folder.
 */
export function load(source: string, options: LoadOptions = {}): Promise<LoadedModel> {
  return loadWith(source, options, async (checkpoint, name, shape) => {
    checkTrainable(checkpoint, name)
    return { shape, data: await checkpoint.read(name) }
  })
}

/** Loads a model to train it, as `load` does, but each tensor is read, or drawn, when a trainer takes it. */
export function loadForTraining(source: string, options: LoadOptions = {}): Promise<LoadedModel<InitialParameter>> {
  return loadWith<InitialParameter>(
    source,
    options,
    async (checkpoint, name, shape) => {
      checkTrainable(checkpoint, name)
      return stored(shape, () => checkpoint.read(name))
    },
    (shape, draw) => stored(shape, async () => draw()),
  )
}

const stored = (shape: readonly number[], read: () => Promise<Float32Array>): InitialParameter => ({
  shape,
  format: undefined,
  read: async () => ({ shape, data: await read() }),
})

function checkTrainable(checkpoint: Checkpoint, name: string): void {
  // A GGUF file is often all there is of a model; a quantised folder was made from one with better weights.
  if (checkpoint.format === 'safetensors' && checkpoint.tensors.get(name)?.blocks)
    throw new UserError(
      `${checkpoint.path}: is quantised; train low-rank weights on it (lora.rank), or the model that it was made from`,
    )
}

/**
 * Loads a model to run it, as `load` does, but its weights stay in their file until an executor takes them: float32 of
 * safetensors files is mapped, the rest is read then, and anew for each program. Matrices that are stored quantised stay
 * so: those of a folder that `quantize` wrote, and of a GGUF file those of types Q8_0, Q4_0, Q4_1 and Q4_K. GGUF's other
 * types become float32.
 */
export function loadForInference(source: string, options: LoadOptions = {}): Promise<InferenceModel> {
  return loadWith<InferenceParameter>(source, options, async (checkpoint, name, shape) => {
    const format = checkpoint.tensors.get(name)?.blocks
    const read = async () => (format ? checkpoint.readQuantized(name) : { shape, data: await checkpoint.read(name) })
    return { shape, format, ...(await checkpoint.map(name)), read }
  })
}

/**
 * Loads an adapter for a model from a folder in PEFT's layout, as decoding takes it: the scale of the low-rank products is in
 * `lora_B`. Throws UserError where it is not an adapter of this model.
 */
export async function loadAdapterFor(model: Model, folder: string): Promise<Adapter> {
  await checkVersion(folder)
  const { config, parameters } = await loadAdapter(folder, ({ rank, targetModules }) => {
    try {
      return loraShapes(model, { rank, targetModules })
    } catch (error) {
      if (!(error instanceof SettingError)) throw error
      throw new UserError(`${join(folder, adapterConfigFile)}: ${error.inNames((name) => adapterKeys[name] ?? name)}`)
    }
  })
  return { config, parameters: scaled(parameters, config.alpha / config.rank) }
}

/** What adapter_config.json calls settings of low-rank weights. */
const adapterKeys: Readonly<Record<string, string>> = { rank: 'r', targetModules: 'target_modules' }

/** Throws UserError for an adapter of an earlier version, whose measured settings are not read any more. */
async function checkVersion(folder: string): Promise<void> {
  const path = join(folder, adapterConfigFile)
  const { decoding } = await readModelJson(path)
  if (!isRecord(decoding) || decoding.row_cost !== undefined) return
  const old = ['draft_threshold', 'branch_threshold'].filter((key) => key in decoding)
  if (old.length > 0)
    throw new UserError(
      `${path}: decoding: row_cost took the place of ${old.join(' and ')}: train the adapter anew with unmask accelerate, ` +
        `or replace them with "row_cost": 0.05 (time of one more position, as a share of a forward of one)`,
    )
}

/** The parameters of an adapter with the scale of its products in `lora_B`. */
export function scaled(parameters: ReadonlyMap<string, Parameter>, scale: number): Map<string, Parameter> {
  return new Map(
    [...parameters].map(([name, { shape, data }]) => [
      name,
      { shape, data: name.endsWith('.lora_B.weight') ? data.map((value) => value * scale) : data },
    ]),
  )
}

async function loadWith<P extends InferenceParameter>(
  source: string,
  options: LoadOptions,
  read: (checkpoint: Checkpoint, name: string, shape: readonly number[]) => Promise<P | Parameter>,
  drawn: (shape: readonly number[], draw: () => Float32Array) => P | Parameter = (shape, draw) => ({
    shape,
    data: draw(),
  }),
): Promise<LoadedModel<P | Parameter>> {
  const { init = 'pretrained', seed = 0 } = options
  const { path } = await pull(source, options)
  const name = modelName(source)
  if (init === 'random' && (await stat(path)).isDirectory() && (await exists(join(path, 'config.json')))) {
    const config = await readModelJson(join(path, 'config.json'))
    if (typeof config.model_type !== 'string') throw new UserError(`${path}/config.json: model_type is missing`)
    const files: Record<string, string> = {}
    for (const file of tokenizerFileNames) {
      if (await exists(join(path, file))) files[file] = await readModelText(join(path, file))
    }
    const model = createModel(config as ModelConfig)
    return {
      name,
      model,
      parameters: drawParameters(model, seed, drawn),
      tokenizer: loadTokenizer(files),
      ...(await readGenerationConfig(path)),
    }
  }

  const checkpoint = await openCheckpoint(path, options)
  try {
    const model = createModel(checkpoint.config)
    const tokenizer = loadTokenizer(await checkpoint.tokenizerFiles())
    const { generationConfig, generationConfigPath } = checkpoint
    const described = { name, model, tokenizer, generationConfig, generationConfigPath }
    if (init === 'random') {
      return { ...described, parameters: drawParameters(model, seed, drawn) }
    }
    checkTensors(checkpoint, model)
    const parameters = new Map<string, P | Parameter>()
    for (const [tensor, shape] of model.parameters) {
      options.signal?.throwIfAborted()
      parameters.set(tensor, await read(checkpoint, tensor, shape))
    }
    return { ...described, parameters }
  } finally {
    await checkpoint.close()
  }
}

/** Throws UserError where a tensor that the model needs is missing or has another shape. */
export function checkTensors(checkpoint: Checkpoint, model: Model): void {
  const { missing, unexpected, wrongShape } = compareTensors(checkpoint, model.parameters)
  const wrong = wrongShape[0]
  if (wrong) {
    throw new UserError(
      `${checkpoint.path}: tensor ${wrong.name} has the shape [${wrong.found.join(', ')}], config.json asks for [${wrong.expected.join(', ')}]`,
    )
  }
  if (missing.length > 0) {
    const more = missing.length > 5 ? ` and ${missing.length - 5} more` : ''
    const wrapped = unexpected.find((name) => name.endsWith(`.${missing[0]}`))
    const hint = wrapped
      ? `; there is ${wrapped.slice(0, 200)}: take ${JSON.stringify(wrapped.slice(0, -missing[0]!.length))} from the names`
      : ''
    throw new UserError(`${checkpoint.path}: tensors are missing: ${missing.slice(0, 5).join(', ')}${more}${hint}`)
  }
}

const WEIGHT_STREAM = 77

/**
 * Random weights as Hugging Face draws them: matrices normal with `initializer_range` (default 0.02) of the config,
 * norms 1, biases 0. A matrix depends on the seed and its place among the matrices alone.
 */
export const randomParameters = (model: Model, seed: number): Map<string, Parameter> =>
  drawParameters(model, seed, (shape, draw) => ({ shape, data: draw() }))

function drawParameters<P>(
  model: Model,
  seed: number,
  make: (shape: readonly number[], draw: () => Float32Array) => P,
): Map<string, P> {
  const { initializer_range: range } = model.config
  const sigma = typeof range === 'number' ? range : 0.02
  let matrices = 0
  return new Map(
    [...model.parameters].map(([name, shape]) => {
      const index = shape.length > 1 ? matrices++ : undefined
      const draw = (): Float32Array => {
        const data = new Float32Array(shape.reduce((product, size) => product * size, 1))
        if (index !== undefined) {
          random(seed, WEIGHT_STREAM, index).fillNormal(data)
          for (let i = 0; i < data.length; i++) data[i]! *= sigma
        } else if (!name.endsWith('bias')) {
          data.fill(1)
        }
        return data
      }
      return [name, make(shape, draw)]
    }),
  )
}
