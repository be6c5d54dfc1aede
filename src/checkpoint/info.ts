// What a checkpoint is, from its headers alone: parameters, stored types, memory, tokenizer, and how its tensors differ
// from what a model expects. Reads no weights and knows no architecture.

import { UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import type { Checkpoint } from './types.ts'

export interface TensorDifferences {
  /** Expected names that the checkpoint lacks. */
  missing: string[]
  /** Names in the checkpoint that nothing expects. */
  unexpected: string[]
  wrongShape: { name: string; found: readonly number[]; expected: readonly number[] }[]
}

export interface TokenizerInfo {
  /** Kind of model in tokenizer.json: BPE, Unigram ... */
  model: string
  /** Ids, added tokens included. */
  vocabularySize: number
  chatTemplate: boolean
}

export interface CheckpointInfo {
  path: string
  format: Checkpoint['format']
  /** `architectures[0]` of the config, or its model type. */
  architecture: string
  modelType: string
  /** Numbers of parameters. `embedding` counts the input embedding and an untied output head. */
  parameters: { total: number; embedding: number; nonEmbedding: number }
  /** Stored types, the one with most bytes first. */
  storedTypes: { dtype: string; tensors: number; parameters: number; bytes: number }[]
  storedBytes: number
  /**
   * Bytes of the weights to decode: as stored in blocks, else float32; and of float32 weights, gradients and AdamW's two
   * moments to train. Activations come on top.
   */
  memory: { inferenceBytes: number; trainingBytes: number }
  /** Undefined where there is no tokenizer; a message where it cannot be read. */
  tokenizer: TokenizerInfo | string | undefined
  /** Undefined where the expected shapes were not given. */
  differences: TensorDifferences | undefined
}

/** Names of embeddings and output heads in Hugging Face's layouts; the last two are LLaDA's. */
const EMBEDDING = /(^|\.)(embed_tokens|word_embeddings|lm_head|transformer\.wte|transformer\.ff_out)\.weight$/

const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1)

/** Compares names and shapes of a checkpoint with what a model expects (Hugging Face name -> shape). */
export const compareTensors = (
  checkpoint: Pick<Checkpoint, 'tensors'>,
  expected: ReadonlyMap<string, readonly number[]>,
): TensorDifferences => {
  const { tensors } = checkpoint
  const differences: TensorDifferences = { missing: [], unexpected: [], wrongShape: [] }
  for (const [name, shape] of expected) {
    const found = tensors.get(name)?.shape
    if (found === undefined) differences.missing.push(name)
    else if (found.length !== shape.length || found.some((size, i) => size !== shape[i]))
      differences.wrongShape.push({ name, found, expected: shape })
  }
  for (const name of tensors.keys()) if (!expected.has(name)) differences.unexpected.push(name)
  return differences
}

const parse = (text: string | undefined): Record<string, unknown> | undefined => {
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Distinct ids of a tokenizer.json: the vocabulary (an object for BPE, a list for Unigram) and the added tokens. */
const countIds = (vocab: unknown, added: unknown): number => {
  const ids = new Set<unknown>(Array.isArray(vocab) ? vocab.keys() : Object.values(isRecord(vocab) ? vocab : {}))
  for (const token of Array.isArray(added) ? added : []) if (isRecord(token)) ids.add(token.id)
  return ids.size
}

const tokenizerInfo = async (checkpoint: Checkpoint): Promise<TokenizerInfo | string | undefined> => {
  let files: Record<string, string>
  try {
    files = await checkpoint.tokenizerFiles()
  } catch (error) {
    if (error instanceof UserError) return error.message
    throw error
  }
  if (files['tokenizer.json'] === undefined)
    return Object.keys(files).length === 0 ? undefined : 'there is no tokenizer.json, the only form that is read'
  const tokenizer = parse(files['tokenizer.json'])
  if (!isRecord(tokenizer?.model)) return 'tokenizer.json is not a tokenizer'
  const { model } = tokenizer
  const config = parse(files['tokenizer_config.json'])
  return {
    model: typeof model.type === 'string' ? model.type : 'unknown',
    vocabularySize: countIds(model.vocab, tokenizer.added_tokens),
    chatTemplate: (config?.chat_template ?? undefined) !== undefined || files['chat_template.jinja'] !== undefined,
  }
}

/** Describes a checkpoint; with `expected` (Hugging Face name -> shape, from the model) also what differs from it. */
export const inspectCheckpoint = async (
  checkpoint: Checkpoint,
  expected?: ReadonlyMap<string, readonly number[]>,
): Promise<CheckpointInfo> => {
  const types = new Map<string, CheckpointInfo['storedTypes'][number]>()
  let total = 0
  let embedding = 0
  let storedBytes = 0
  let inferenceBytes = 0
  for (const { name, dtype, shape, byteLength, blocks } of checkpoint.tensors.values()) {
    const count = elementCount(shape)
    total += count
    storedBytes += byteLength
    inferenceBytes += blocks ? byteLength : 4 * count
    if (EMBEDDING.test(name)) embedding += count
    const type = types.get(dtype) ?? { dtype, tensors: 0, parameters: 0, bytes: 0 }
    type.tensors++
    type.parameters += count
    type.bytes += byteLength
    types.set(dtype, type)
  }
  const { architectures, model_type: modelType } = checkpoint.config
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined
  return {
    path: checkpoint.path,
    format: checkpoint.format,
    architecture: typeof architecture === 'string' ? architecture : modelType,
    modelType,
    parameters: { total, embedding, nonEmbedding: total - embedding },
    storedTypes: [...types.values()].sort((a, b) => b.bytes - a.bytes),
    storedBytes,
    memory: { inferenceBytes, trainingBytes: 16 * total },
    tokenizer: await tokenizerInfo(checkpoint),
    differences: expected === undefined ? undefined : compareTensors(checkpoint, expected),
  }
}
