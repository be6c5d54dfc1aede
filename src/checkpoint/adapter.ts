// Adapters on the disk, in PEFT's layout: adapter_config.json and adapter_model.safetensors. Knows names and shapes; what an
// adapter does is not its business.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Parameter, UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { isMagnitude } from '../models/lora.ts'
import { readModelJson, writeTextAtomically } from './file.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-write.ts'

/** How an accelerator decodes, as measured on the machine that chose it. */
export interface StridedSettings {
  /** Masks behind a position: tokens that are drafted at a time. */
  masks: number
  /** Time of one more position in a forward, as a share of a forward of one. */
  rowCost: number
}

/** What PEFT's config says of low-rank weights. */
export interface LoraConfig {
  rank: number
  alpha: number
  /** Last parts of the names of the projections that have low-rank weights. */
  targetModules: readonly string[]
  /** Rows of these projections have lengths of their own too (DoRA). */
  dora: boolean
  /** The model that they were trained with, as it was named. */
  base: string
}

/** Low-rank weights that act at every position: with its base a model of its own. */
export interface ModelAdapterConfig extends LoraConfig {
  /** What is different in the base's config.json. */
  modelConfig: Readonly<Record<string, unknown>>
}

export interface ModelAdapter {
  config: ModelAdapterConfig
  /**
   * `lora_A.weight` [r, in] and `lora_B.weight` [out, r] of projections, with DoRA `lora_magnitude_vector` [out], by name without
   * PEFT's prefix.
   */
  parameters: Map<string, Parameter>
  generationConfig?: Readonly<Record<string, unknown>> | undefined
}

/** Low-rank weights that draft, at masks alone. */
export interface AdapterConfig extends LoraConfig {
  /** The token that PEFT calls a trained token; whatever the base's row for it holds is not used. */
  maskTokenId: number
  /** Masks of a stride in training: decoding may use fewer. */
  blockSize: number
  decoding: StridedSettings
}

export interface Adapter {
  config: AdapterConfig
  /** By name without PEFT's prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  parameters: Map<string, Parameter>
}

const PREFIX = 'base_model.model.'
export const adapterConfigFile = 'adapter_config.json'
const weightsFile = 'adapter_model.safetensors'

/** Sizes beyond these are a broken or hostile file. */
const LARGEST_RANK = 4096
const MOST_MODULES = 64
const LARGEST_BLOCK = 64

/** Writes the folder; each file is whole or not there. */
export async function saveAdapter(folder: string, { config, parameters }: Adapter): Promise<void> {
  await mkdir(folder, { recursive: true })
  await writeSafetensors(
    join(folder, weightsFile),
    new Map([...parameters].map(([name, value]) => [PREFIX + name, value])),
  )
  const embedding = [...parameters.keys()].find((name) => name.endsWith('.token_adapter.trainable_tokens_delta'))
  const json = {
    ...peftJson(config),
    ...(embedding ? { trainable_token_indices: { [embedding.split('.').at(-3)!]: [config.maskTokenId] } } : {}),
    mask_token_id: config.maskTokenId,
    block_size: config.blockSize,
    decoding: {
      masks: config.decoding.masks,
      row_cost: config.decoding.rowCost,
    },
  }
  await writeJson(join(folder, adapterConfigFile), json)
}

/**
 * Writes the folder of an adapter that makes a model of its base, its matrices in float16, as PEFT reads it; each file is whole
 * or not there.
 */
export async function saveModelAdapter(
  folder: string,
  { config, parameters, generationConfig }: ModelAdapter,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  await writeSafetensors(
    join(folder, weightsFile),
    new Map([...parameters].map(([name, value]) => [PREFIX + name, value])),
    { dtype: (name) => (isMagnitude(name) ? 'F32' : 'F16') },
  )
  if (generationConfig) await writeJson(join(folder, 'generation_config.json'), generationConfig)
  await writeJson(join(folder, adapterConfigFile), { ...peftJson(config), model_config: config.modelConfig })
}

const writeJson = (path: string, json: unknown) => writeTextAtomically(path, `${JSON.stringify(json, null, 2)}\n`)

const peftJson = ({ base, rank, alpha, targetModules, dora }: LoraConfig) => ({
  peft_type: 'LORA',
  task_type: 'CAUSAL_LM',
  base_model_name_or_path: base,
  r: rank,
  lora_alpha: alpha,
  lora_dropout: 0,
  bias: 'none',
  use_dora: dora,
  fan_in_fan_out: false,
  inference_mode: true,
  target_modules: [...targetModules],
})

/** Reads what every adapter_config.json says, and how to complain about the rest. Throws UserError that names the key. */
async function readLoraConfig(folder: string) {
  const path = join(folder, adapterConfigFile)
  const json = await readModelJson(path)
  const bad = (key: string, expected: string): never => {
    throw new UserError(`${path}: ${key} must be ${expected}, got ${JSON.stringify(json[key])?.slice(0, 100)}`)
  }
  const whole = (key: string, largest: number, least = 1): number => {
    const value = json[key]
    return Number.isInteger(value) && (value as number) >= least && (value as number) <= largest
      ? (value as number)
      : bad(key, `a whole number from ${least} to ${largest}`)
  }
  if (json.peft_type !== 'LORA') bad('peft_type', '"LORA"')
  for (const key of ['use_rslora', 'fan_in_fan_out'])
    if (json[key] === true) bad(key, 'false (others are not supported)')
  const { use_dora: dora = false } = json
  if (typeof dora !== 'boolean') return bad('use_dora', 'true or false')
  for (const key of ['rank_pattern', 'alpha_pattern', 'modules_to_save'])
    if (typeof json[key] === 'object' && Object.keys(json[key] ?? {}).length > 0)
      bad(key, 'empty (others are not supported)')
  if (json.bias !== undefined && json.bias !== 'none') bad('bias', '"none"')
  const modules = json.target_modules
  const alpha = json.lora_alpha
  if (
    !Array.isArray(modules) ||
    modules.length === 0 ||
    modules.length > MOST_MODULES ||
    !modules.every((name): name is string => typeof name === 'string' && /^\w+$/.test(name))
  )
    return bad('target_modules', `a list of 1 to ${MOST_MODULES} names`)
  if (typeof alpha !== 'number' || !Number.isFinite(alpha)) return bad('lora_alpha', 'a number')
  if (typeof json.base_model_name_or_path !== 'string') return bad('base_model_name_or_path', 'text')
  const config: LoraConfig = {
    rank: whole('r', LARGEST_RANK),
    alpha,
    targetModules: modules,
    dora,
    base: json.base_model_name_or_path,
  }
  return { json, bad, whole, config }
}

/** What the folder of an adapter is. */
export interface AdapterSummary extends LoraConfig {
  method: 'LoRA' | 'DoRA'
  /** It drafts for its base; otherwise it makes a model of it. */
  drafts: boolean
}

/** What adapter_config.json says of an adapter of either kind. Throws UserError that names the key. */
export async function adapterSummary(folder: string): Promise<AdapterSummary> {
  const { json, config } = await readLoraConfig(folder)
  return { ...config, method: config.dora ? 'DoRA' : 'LoRA', drafts: isRecord(json.decoding) }
}

/** Reads and checks the config of an adapter that makes a model of its base. Throws UserError that names the key. */
export async function readModelAdapterConfig(folder: string): Promise<ModelAdapterConfig> {
  const { json, bad, config } = await readLoraConfig(folder)
  if (isRecord(json.decoding))
    throw new UserError(
      `${folder}: holds an adapter that drafts, not a model; give the model that it was made for, and this with --adapter`,
    )
  const { model_config: modelConfig = {} } = json
  if (!isRecord(modelConfig)) return bad('model_config', 'an object')
  return { ...config, modelConfig }
}

/** Reads and checks the config of an adapter that drafts. Throws UserError that names the key. */
export async function readAdapterConfig(folder: string): Promise<AdapterConfig> {
  const { json, bad, whole, config } = await readLoraConfig(folder)
  const { decoding } = json
  if (decoding === undefined)
    throw new UserError(
      `${folder}: holds an adapter that is a model of its own, not one that drafts: give it as the model`,
    )
  const blockSize = whole('block_size', LARGEST_BLOCK)
  if (config.dora) bad('use_dora', 'false for an adapter that drafts')
  if (!isRecord(decoding)) return bad('decoding', '{ masks, row_cost }')
  const { masks, row_cost: rowCost } = decoding
  const isShare = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= 1
  if (!Number.isInteger(masks) || (masks as number) < 1 || (masks as number) > blockSize)
    bad('decoding', `with masks from 1 to block_size, ${blockSize}`)
  if (!isShare(rowCost)) return bad('decoding', 'with row_cost from 0 to 1')
  return {
    ...config,
    maskTokenId: whole('mask_token_id', 2 ** 31, 0),
    blockSize,
    decoding: { masks: masks as number, rowCost },
  }
}

/**
 * Reads an adapter whose tensors must have the names and shapes that `shapesOf` gives for its config (names without
 * PEFT's prefix). Throws UserError where the folder is not such an adapter.
 */
export async function loadAdapter(
  folder: string,
  shapesOf: (config: AdapterConfig) => ReadonlyMap<string, readonly number[]>,
): Promise<Adapter> {
  const config = await readAdapterConfig(folder)
  const shapes = shapesOf(config)
  const file = await openSafetensors(join(folder, weightsFile))
  try {
    const parameters = new Map<string, Parameter>()
    for (const [name, shape] of shapes) {
      const info = file.tensors.get(PREFIX + name)
      if (!info) throw new UserError(`${file.path}: tensor ${PREFIX}${name} is missing`)
      if (info.shape.join() !== shape.join())
        throw new UserError(
          `${file.path}: tensor ${PREFIX}${name} has the shape [${info.shape.join(', ')}], the model needs [${shape.join(', ')}]`,
        )
      const data = await file.read(PREFIX + name)
      if (!data.every(Number.isFinite))
        throw new UserError(`${file.path}: tensor ${PREFIX}${name} holds values that are not finite`)
      parameters.set(name, { shape, data })
    }
    const unknown = [...file.tensors.keys()].find((name) => !shapes.has(name.slice(PREFIX.length)))
    if (unknown) throw new UserError(`${file.path}: tensor ${unknown.slice(0, 200)} has no place in the model`)
    return { config, parameters }
  } finally {
    await file.close()
  }
}

/**
 * The parameters of an adapter that makes a model of its base, by name without PEFT's prefix. Throws UserError where one has no
 * partner, or its shape or values make no sense.
 */
export async function readModelAdapter(folder: string, { rank, dora }: LoraConfig): Promise<Map<string, Parameter>> {
  const file = await openSafetensors(join(folder, weightsFile))
  const fail = (problem: string): never => {
    throw new UserError(`${file.path}: tensor ${problem}`)
  }
  try {
    const parameters = new Map<string, Parameter>()
    for (const [stored, { shape }] of file.tensors) {
      const [, name, module, half] = NAME.exec(stored) ?? []
      if (name === undefined || module === undefined)
        return fail(`${stored.slice(0, 200)} is not a low-rank weight (lora_A, lora_B)`)
      const isVector = half === undefined
      if (isVector && !dora) fail(`${stored} belongs to DoRA, and ${adapterConfigFile} does not say use_dora`)
      if (isVector ? shape.length !== 1 : shape.length !== 2 || shape[half === 'A' ? 0 : 1] !== rank)
        fail(`${stored} has the shape [${shape.join(', ')}], not ${isVector ? '[rows]' : `of rank ${rank}`}`)
      for (const part of ['lora_A.weight', 'lora_B.weight', ...(dora ? ['lora_magnitude_vector'] : [])])
        if (!file.tensors.has(`${module}.${part}`)) fail(`${module}.${part} is missing`)
      const data = await file.read(stored)
      if (!data.every(Number.isFinite)) fail(`${stored} holds values that are not finite`)
      parameters.set(name, { shape, data })
    }
    return parameters
  } finally {
    await file.close()
  }
}

/** A tensor's name: without PEFT's prefix, its module, and whether it is A or B; else it holds lengths of rows. */
const NAME = /^(?=base_model\.model\.(.+))(.+)\.(?:lora_([AB])\.weight|lora_magnitude_vector)$/
