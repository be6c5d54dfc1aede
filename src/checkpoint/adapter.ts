// Adapters on the disk, in PEFT's layout: adapter_config.json and adapter_model.safetensors. Knows names and shapes; what an
// adapter does is not its business.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Parameter, UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { readJsonObject, writeTextAtomically } from './file.ts'
import { openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-write.ts'

/** How an accelerator decodes, as measured on the machine that chose it. */
export interface StridedSettings {
  /** Masks behind a position: tokens that are drafted at a time. */
  masks: number
  /** Drafts end before the first whose probability, times those before it, is below this. */
  draftThreshold: number
  /** Masks stand behind a token only where it is at least this probable to be the last accepted. */
  branchThreshold: number
}

export interface AdapterConfig {
  rank: number
  alpha: number
  /** Last parts of the names of the projections that have low-rank weights. */
  targetModules: readonly string[]
  /** The model that it was trained with, as it was named. */
  base: string
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
const configFile = 'adapter_config.json'
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
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: config.base,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: 0,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    target_modules: [...config.targetModules],
    ...(embedding ? { trainable_token_indices: { [embedding.split('.').at(-3)!]: [config.maskTokenId] } } : {}),
    mask_token_id: config.maskTokenId,
    block_size: config.blockSize,
    decoding: {
      masks: config.decoding.masks,
      draft_threshold: config.decoding.draftThreshold,
      branch_threshold: config.decoding.branchThreshold,
    },
  }
  await writeTextAtomically(join(folder, configFile), `${JSON.stringify(json, null, 2)}\n`)
}

/** Reads and checks adapter_config.json. Throws UserError that names the key. */
export async function readAdapterConfig(folder: string): Promise<AdapterConfig> {
  const path = join(folder, configFile)
  const json = await readJsonObject(path)
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
  for (const key of ['use_dora', 'use_rslora', 'fan_in_fan_out'])
    if (json[key] === true) bad(key, 'false (others are not supported)')
  if (json.bias !== undefined && json.bias !== 'none') bad('bias', '"none"')
  const blockSize = whole('block_size', LARGEST_BLOCK)
  const modules = json.target_modules
  const alpha = json.lora_alpha
  const decoding = json.decoding
  if (
    !Array.isArray(modules) ||
    modules.length === 0 ||
    modules.length > MOST_MODULES ||
    !modules.every((name): name is string => typeof name === 'string' && /^\w+$/.test(name))
  )
    return bad('target_modules', `a list of 1 to ${MOST_MODULES} names`)
  if (typeof alpha !== 'number' || !Number.isFinite(alpha)) return bad('lora_alpha', 'a number')
  if (typeof json.base_model_name_or_path !== 'string') return bad('base_model_name_or_path', 'text')
  if (!isRecord(decoding)) return bad('decoding', '{ masks, draft_threshold, branch_threshold }')
  const { masks, draft_threshold: draftThreshold, branch_threshold: branchThreshold } = decoding
  const isShare = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= 1
  if (!Number.isInteger(masks) || (masks as number) < 1 || (masks as number) > blockSize)
    bad('decoding', `with masks from 1 to block_size, ${blockSize}`)
  if (!isShare(draftThreshold) || !isShare(branchThreshold)) return bad('decoding', 'with thresholds from 0 to 1')
  return {
    rank: whole('r', LARGEST_RANK),
    alpha,
    targetModules: modules,
    base: json.base_model_name_or_path,
    maskTokenId: whole('mask_token_id', 2 ** 31, 0),
    blockSize,
    decoding: { masks: masks as number, draftThreshold, branchThreshold },
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
