// Checkpoints as folders and files: which files make one up, opening it in either format, saving in Hugging Face layout.
// Knows nothing about what the tensors are for.
import { mkdir, readdir, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { type ModelConfig, UserError } from '../core/types.ts'
import { dequantize } from '../quant/layout.ts'
import { tokenizerFileNames } from '../tokenizer/files.ts'
import {
  errorCode,
  exists,
  makeFolder,
  readModelJson,
  readModelText,
  syncFolder,
  temporaryName,
  writeTextAtomically,
} from './file.ts'
import { type GgufMetadata, openGguf } from './gguf.ts'
import { blockFormatOf } from './gguf-blocks.ts'
import { ggufEndTokens } from './gguf-end-tokens.ts'
import { ggufModel, restoreRotaryRows } from './gguf-model.ts'
import { ggufTokenizerFiles } from './gguf-tokenizer.ts'
import { splitExperts } from './merged-experts.ts'
import { mapParameter, quantizedTensors, readQuantized } from './quantized.ts'
import { openSafetensors, type SafetensorsFile } from './safetensors.ts'
import { type StoredDType, type WritableTensors, writeShardedSafetensors } from './safetensors-write.ts'
import type { Checkpoint, TensorInfo } from './types.ts'
import { unwrapNames } from './wrapped-names.ts'

const INDEX = 'model.safetensors.index.json'
const GENERATION_CONFIG = 'generation_config.json'

const openGgufCheckpoint = async (opened: string, path: string): Promise<Checkpoint> => {
  const file = await openGguf(path)
  try {
    const parts = file.metadata.get('split.count')
    if (typeof parts === 'number' && parts > 1)
      throw new UserError(`${path}: is one of ${parts} parts of a model; join them first (llama-gguf-split --merge)`)
    const { config, headDim, huggingFaceName, reorderedHeads } = await ggufModel(file)
    const tensors = new Map<string, TensorInfo>()
    const sourceNames = new Map<string, string>()
    for (const { name: source, type, shape, byteOffset, byteLength } of file.tensors.values()) {
      const name = huggingFaceName(source)
      if (name === undefined) continue
      if (tensors.has(name))
        throw new UserError(`${path}: tensors ${source} and ${sourceNames.get(name)} are both ${name}`)
      const heads = reorderedHeads(source)
      if (heads !== undefined && shape[0] !== heads * headDim)
        throw new UserError(`${path}: tensor "${source}": ${shape[0]} rows, expected ${heads} heads of ${headDim}`)
      sourceNames.set(name, source)
      const blocks = shape.length === 2 ? blockFormatOf(type) : undefined
      const info = { name, dtype: type.name, shape, file: path, byteOffset, byteLength }
      tensors.set(name, blocks ? { ...info, blocks } : info)
    }
    const sourceOf = (name: string): string => {
      const source = sourceNames.get(name)
      if (source === undefined) throw new UserError(`${path}: has no tensor ${JSON.stringify(name)}`)
      return source
    }
    /** Undoes llama.cpp's order of the rows of query and key projections, in each of the arrays that store them. */
    const restoreRows = (source: string, ...arrays: (Float32Array | Uint8Array | undefined)[]) => {
      const heads = reorderedHeads(source)
      if (heads === undefined) return
      for (const values of arrays) if (values) restoreRotaryRows(values, heads, headDim)
    }
    return {
      path: opened,
      format: 'gguf',
      config,
      generationConfig: generationConfigOf(file.metadata, config),
      tensors,
      read: async (name) => {
        const source = sourceOf(name)
        const values = await file.read(source)
        restoreRows(source, values)
        return values
      },
      readQuantized: async (name) => {
        const source = sourceOf(name)
        const parameter = await file.readQuantized(source)
        restoreRows(source, parameter.packed, parameter.scales, parameter.zeroPoints, parameter.offsets)
        return parameter
      },
      map: async () => undefined,
      tokenizerFiles: async () => ggufTokenizerFiles(path, file.metadata),
      close: file.close,
    }
  } catch (error) {
    await file.close()
    throw error
  }
}

const readConfig = async (path: string): Promise<ModelConfig> => {
  const config = await readModelJson(path)
  if (typeof config.model_type !== 'string') throw new UserError(`${path}: model_type is missing`)
  return config as ModelConfig
}

/** generation_config.json of a folder, and where it lies; undefined where there is none. */
export const readGenerationConfig = async (
  folder: string,
): Promise<Pick<Checkpoint, 'generationConfig' | 'generationConfigPath'>> => {
  const path = join(folder, GENERATION_CONFIG)
  if (!(await exists(path))) return { generationConfig: undefined }
  return { generationConfig: await readModelJson(path), generationConfigPath: path }
}

/** Opens weights (.safetensors files or an index) with config.json and the tokenizer beside them. */
const openSafetensorsCheckpoint = async (path: string, ...weights: [string, ...string[]]): Promise<Checkpoint> => {
  const folder = dirname(weights[0])
  const config = await readConfig(join(folder, 'config.json'))
  const generation = await readGenerationConfig(folder)
  const opened = await openSafetensors(...weights)
  let file: SafetensorsFile
  let tensors: ReadonlyMap<string, TensorInfo>
  try {
    file = splitExperts(unwrapNames(opened), config)
    tensors = quantizedTensors(file, config)
  } catch (error) {
    await opened.close()
    throw error
  }
  return {
    path,
    format: 'safetensors',
    config,
    ...generation,
    tensors,
    read: async (name) =>
      tensors.get(name)?.blocks ? dequantize(await readQuantized(file, tensors, name)) : file.read(name),
    readQuantized: (name) => readQuantized(file, tensors, name),
    // The executor takes files of one folder, and follows no links out of it.
    map: (name) => mapParameter(file, tensors, name, (path) => realpath(path)),
    tokenizerFiles: async () => {
      const files: Record<string, string> = {}
      for (const name of tokenizerFileNames)
        if (await exists(join(folder, name))) files[name] = await readModelText(join(folder, name))
      return files
    },
    close: file.close,
  }
}

/** The names, if they are the shards of one model; throws UserError where some of them are missing. */
const allShards = (folder: string, names: readonly string[]): readonly string[] | undefined => {
  const parts = names.map((name) => /^(.*-)(\d{5})(-of-(\d{5})\.safetensors)$/.exec(name))
  const [first] = parts
  if (!first || parts.some((part) => part?.[1] !== first[1] || part?.[3] !== first[3])) return undefined
  const count = Math.min(Number(first[4]), MOST_SHARDS)
  const all = Array.from({ length: count }, (_, i) => `${first[1]}${String(i + 1).padStart(5, '0')}${first[3]}`)
  const missing = all.filter((name) => !names.includes(name))
  if (missing.length === 0) return all
  throw new UserError(`${folder}: ${missing.length} of ${count} shards are missing: ${missing.slice(0, 5).join(', ')}`)
}

const MOST_SHARDS = 99_999

const list = async (folder: string): Promise<string[]> => (await readdir(folder)).sort()

/** The file of a folder that holds the weights or lists their shards, or all of the shards where nothing lists them. */
const findWeights = async (folder: string): Promise<[string, ...string[]]> => {
  const names = await list(folder)
  if (names.includes(INDEX)) return [join(folder, INDEX)]
  if (names.includes('model.safetensors')) return [join(folder, 'model.safetensors')]
  if (names.includes('adapter_config.json') && !names.includes('config.json'))
    throw new UserError(`${folder}: holds an adapter, not the weights of a model`)
  for (const extension of ['.safetensors', '.gguf']) {
    const found = names.filter((name) => name.endsWith(extension) && !name.startsWith('.'))
    const [first, ...others] = allShards(folder, found) ?? (found.length === 1 ? found : [])
    if (first !== undefined) return [join(folder, first), ...others.map((name) => join(folder, name))]
    if (found.length > 1)
      throw new UserError(`${folder}: holds ${found.length} ${extension} files; name one of them: ${found.join(', ')}`)
  }
  const pickled = names.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name))
  throw new UserError(
    pickled === undefined
      ? `${folder}: holds no checkpoint: it has no .safetensors and no .gguf file`
      : `${folder}: ${pickled} is a pickled PyTorch file, which is not read; save the model as safetensors`,
  )
}

/**
 * Opens a checkpoint: a folder with config.json and safetensors (single or sharded) or with one .gguf file, or one
 * .safetensors file (config.json beside it) or .gguf file. Headers are read and checked, weights are not; the caller
 * closes it. Throws UserError, naming file and tensor, when something is missing or inconsistent.
 */
export const openCheckpoint = async (path: string): Promise<Checkpoint> => {
  let folder: boolean
  try {
    folder = (await stat(path)).isDirectory()
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR')
      throw new UserError(`${path}: no such file or folder`)
    throw error
  }
  const [weights, ...others] = folder ? await findWeights(path) : [path]
  if (weights.endsWith('.gguf')) return openGgufCheckpoint(path, weights)
  if (weights.endsWith('.safetensors') || weights.endsWith('.safetensors.index.json'))
    return openSafetensorsCheckpoint(path, weights, ...others)
  throw new UserError(`${path}: not a checkpoint: expected a folder, a .safetensors file or a .gguf file`)
}

export interface SaveOptions {
  config: ModelConfig
  parameters: WritableTensors
  /** File name -> text, as `Checkpoint.tokenizerFiles` and `Tokenizer.files` give them. */
  tokenizerFiles?: Readonly<Record<string, string>>
  generationConfig?: Readonly<Record<string, unknown>>
  /** Further files, name -> text, such as a model card. Default none. */
  files?: Readonly<Record<string, string>>
  /** Type of the stored weights. Default F32. */
  dtype?: StoredDType
  /** Weights larger than this are split into shards. Default 5 GB. */
  maxShardBytes?: number
}

const torchDTypes: Readonly<Record<StoredDType, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' }

/** Whether an entry of a checkpoint folder is part of the checkpoint, and so is replaced with it. */
const isCheckpointFile = (name: string): boolean =>
  name === 'config.json' ||
  name === GENERATION_CONFIG ||
  tokenizerFileNames.includes(name) ||
  /\.safetensors(\.index\.json)?$/.test(name)

const holdsCheckpoint = (names: readonly string[]): boolean =>
  names.includes('config.json') && names.some((name) => name.endsWith('.safetensors'))

/** The names in a folder that may be written to; undefined when there is nothing yet. */
const existingEntries = async (folder: string): Promise<string[] | undefined> => {
  let names: string[]
  try {
    names = await list(folder)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    if (errorCode(error) === 'ENOTDIR') throw new UserError(`${folder}: is a file; a checkpoint is saved to a folder`)
    throw error
  }
  if (names.length > 0 && !holdsCheckpoint(names))
    throw new UserError(
      `${folder}: exists and holds no checkpoint, so it is not replaced; choose a new or empty folder`,
    )
  return names
}

/** Puts the finished folder in the place of the old one. What in the old one is not part of a checkpoint is kept. */
const replaceFolder = async (finished: string, folder: string, oldNames: readonly string[]): Promise<void> => {
  const newNames = await list(finished)
  const old = temporaryName(folder)
  await rename(folder, old)
  try {
    await rename(finished, folder)
  } catch (error) {
    await rename(old, folder)
    throw error
  }
  for (const name of oldNames)
    if (!isCheckpointFile(name) && !newNames.includes(name)) await rename(join(old, name), join(folder, name))
  await rm(old, { recursive: true })
}

/**
 * Makes a checkpoint folder as a whole: `write` fills a temporary folder beside `folder`, which then takes its place; a
 * folder that exists is replaced only when it is empty or holds a checkpoint, and keeps its other files. (Between the two
 * renames that replace it, an instant, the old folder has the hidden name `.<name>.<random>.tmp`.)
 */
export const makeCheckpointFolder = async (
  folder: string,
  write: (temporary: string) => Promise<void>,
): Promise<void> => {
  // A link stays one: what it points to is replaced.
  const target = (await exists(folder)) ? await realpath(folder) : resolve(folder)
  const oldNames = await existingEntries(target)
  await makeFolder(dirname(target))
  const temporary = temporaryName(target)
  await mkdir(temporary)
  try {
    await write(temporary)
    if (oldNames === undefined) await rename(temporary, target)
    else await replaceFolder(temporary, target, oldNames)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
  await syncFolder(dirname(target))
}

/** What generation_config.json would say: the tokens that end a text, where config.json does not name them all. */
const generationConfigOf = (metadata: GgufMetadata, config: ModelConfig): Record<string, unknown> | undefined => {
  const ends = ggufEndTokens(metadata)
  return ends.some((id) => id !== config.eos_token_id) ? { eos_token_id: ends } : undefined
}

/** Writes a model in Hugging Face layout to a folder that exists; see `saveCheckpoint`. */
export const writeCheckpoint = async (folder: string, options: SaveOptions): Promise<void> => {
  const { config, parameters, tokenizerFiles = {}, generationConfig, files, dtype = 'F32', maxShardBytes } = options
  for (const name of Object.keys(tokenizerFiles))
    if (!tokenizerFileNames.includes(name)) throw new UserError(`${name} is not the name of a tokenizer file`)
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`
  // Current transformers writes the type as `dtype`, earlier ones as `torch_dtype`; both read the latter.
  const dtypeKeys = 'dtype' in config ? { dtype: torchDTypes[dtype] } : { torch_dtype: torchDTypes[dtype] }
  await writeShardedSafetensors(folder, parameters, { dtype, maxShardBytes })
  await writeTextAtomically(join(folder, 'config.json'), json({ ...config, ...dtypeKeys }))
  if (generationConfig !== undefined) await writeTextAtomically(join(folder, GENERATION_CONFIG), json(generationConfig))
  for (const [name, text] of Object.entries({ ...tokenizerFiles, ...files }))
    await writeTextAtomically(join(folder, name), text)
}

/**
 * Saves a model in Hugging Face layout: config.json, model.safetensors or its shards, generation_config.json and the
 * tokenizer files, by `makeCheckpointFolder`.
 */
export const saveCheckpoint = (folder: string, options: SaveOptions): Promise<void> =>
  makeCheckpointFolder(folder, (temporary) => writeCheckpoint(temporary, options))
