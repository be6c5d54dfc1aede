// Checkpoints that store the matrices of all experts of a layer as one tensor [experts, rows, columns]: each expert's is a
// range of its bytes, and is described as a tensor of its own, under the name that single matrices have. Two layouts:
//   dFactory        mlp.experts.{gate,up,down}_proj                      (no .weight)
//   transformers    mlp.experts.gate_up_proj [experts, gate rows then up rows, in], mlp.experts.down_proj
import { type ModelConfig, UserError } from '../core/types.ts'
import type { SafetensorsFile } from './safetensors.ts'
import type { TensorInfo } from './types.ts'

const MERGED = /^(.+\.mlp\.experts)\.(gate_proj|up_proj|down_proj|gate_up_proj)$/

/** Values of `model_type` whose merged tensors are laid out so; others have transposed or interleaved ones. */
const families: readonly string[] = ['llada2_moe', 'llada2_moe_veomni', 'bailing_moe_v2', 'qwen3_moe']

/** More is a broken or hostile file: each expert becomes an entry. */
const MOST_EXPERTS = 4096

/** The same file with merged experts split; one without them is returned as it is. Nothing is read. */
export function splitExperts(file: SafetensorsFile, { model_type: family }: ModelConfig): SafetensorsFile {
  if (!families.includes(family) || ![...file.tensors.keys()].some((name) => MERGED.test(name))) return file
  const tensors = new Map<string, TensorInfo>()
  for (const info of file.tensors.values())
    for (const part of split(info)) {
      if (tensors.has(part.name))
        throw new UserError(`${info.file}: tensor ${part.name} is there twice, merged with others and by itself`)
      tensors.set(part.name, part)
    }
  const part = (tensor: string | TensorInfo) => (typeof tensor === 'string' ? (tensors.get(tensor) ?? tensor) : tensor)
  return {
    ...file,
    tensors,
    read: (tensor) => file.read(part(tensor)),
    readRaw: (tensor) => file.readRaw(part(tensor)),
  }
}

/** A tensor of merged experts as one per expert and matrix; any other as it is. */
function split(info: TensorInfo): TensorInfo[] {
  const { shape, file, byteOffset, byteLength, name } = info
  const [, layer, matrix] = MERGED.exec(name) ?? []
  if (layer === undefined || matrix === undefined) return [info]
  const fail = (problem: string): never => {
    throw new UserError(`${file}: tensor ${name}: [${shape.join(', ')}] is not [experts, rows, columns]: ${problem}`)
  }
  const [experts, rows, columns] = shape
  if (shape.length !== 3 || byteLength === 0) return fail('it does not have three dimensions')
  if (experts < 1 || experts > MOST_EXPERTS) return fail(`from 1 to ${MOST_EXPERTS} experts can be read`)
  const names = matrix === 'gate_up_proj' ? ['gate_proj', 'up_proj'] : [matrix]
  const count = experts * names.length
  if (rows % names.length !== 0 || byteLength % count !== 0) return fail('it cannot be cut into equal matrices')
  const bytes = byteLength / count
  return Array.from({ length: count }, (_, i) => ({
    ...info,
    name: `${layer}.${Math.floor(i / names.length)}.${names[i % names.length]}.weight`,
    shape: [rows / names.length, columns],
    byteOffset: byteOffset + i * bytes,
    byteLength: bytes,
  }))
}
