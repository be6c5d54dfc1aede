// A model from the bytes of its files, which stay where they are: an executor reads the weights from them.
import type { InferenceModel } from '../checkpoint/load.ts'
import { mapParameter, quantizedTensors } from '../checkpoint/quantized.ts'
import type { TensorInfo } from '../checkpoint/types.ts'
import { type InferenceParameter, type ModelConfig, UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { headerLength, PREFIX_BYTES, parseHeader } from '../formats/safetensors.ts'
import { createModel } from '../models/index.ts'
import { tokenizerFileNames } from '../tokenizer/files.ts'
import { loadTokenizer } from '../tokenizer/index.ts'

/** Weights name their file with this folder before it. */
export const FOLDER = '/model'

/**
 * The model that files make up, by their names: config.json, the tokenizer's, *.safetensors. Throws UserError where one is
 * missing or wrong, or weights are neither float32 nor as `quantize` writes them.
 */
export async function readModel(name: string, files: ReadonlyMap<string, Uint8Array>): Promise<InferenceModel> {
  const json = (file: string): Record<string, unknown> | undefined => {
    const text = textOf(files, file)
    if (text === undefined) return undefined
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw new UserError(`${file}: not JSON: ${(error as Error).message}`)
    }
    if (!isRecord(value)) throw new UserError(`${file}: not a JSON object`)
    return value
  }
  const config = json('config.json')
  if (!config)
    throw new UserError(`there is no config.json among the files: ${[...files.keys()].slice(0, 10).join(', ')}`)
  if (typeof config.model_type !== 'string') throw new UserError('config.json: model_type is missing')
  const model = createModel(config as ModelConfig)
  const texts = tokenizerFileNames.filter((file) => files.has(file))
  const tokenizer = loadTokenizer(Object.fromEntries(texts.map((file) => [file, textOf(files, file)!])))

  const stored = new Map<string, TensorInfo>()
  for (const [path, bytes] of files) {
    if (!path.endsWith('.safetensors')) continue
    const end = PREFIX_BYTES + headerLength(path, bytes.subarray(0, PREFIX_BYTES), bytes.length)
    for (const [tensor, info] of parseHeader(path, bytes.subarray(PREFIX_BYTES, end), bytes.length).tensors)
      stored.set(tensor, info)
  }
  const file = { path: name, tensors: stored }
  const tensors = quantizedTensors(file, model.config)
  const parameters = new Map<string, InferenceParameter>()
  for (const [tensor, shape] of model.parameters) {
    const info = tensors.get(tensor)
    if (!info) throw new UserError(`${name}: tensor ${tensor} is missing`)
    if (info.shape.join() !== shape.join())
      throw new UserError(`${name}: tensor ${tensor} has the shape [${info.shape}], config.json asks for [${shape}]`)
    const mapped = await mapParameter(file, tensors, tensor, (path) => `${FOLDER}/${path}`)
    if (!mapped)
      throw new UserError(
        `${name}: tensor ${tensor} is ${info.dtype}; a browser reads float32 and what unmask quantize writes: ` +
          'write the folder with unmask export --to web',
      )
    parameters.set(tensor, mapped)
  }
  return { name, model, parameters, tokenizer, generationConfig: json('generation_config.json') }
}

function textOf(files: ReadonlyMap<string, Uint8Array>, name: string): string | undefined {
  const bytes = files.get(name)
  return bytes && new TextDecoder().decode(bytes)
}
