// Names of tensors as they are called when a model was saved inside a wrapper: torch.compile, FSDP, DistributedDataParallel,
// PEFT; or without the part that transformers puts around a decoder. Each is what a model calls it, and nothing is read.
import { UserError } from '../core/types.ts'
import type { SafetensorsFile } from './safetensors.ts'
import type { TensorInfo } from './types.ts'

/** Wrappers of a module, which no architecture has among its names. */
const WRAPPERS = /(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g

/** Wrappers of a whole model, by what all of its names then begin with. */
const PREFIXES = ['module.', 'base_model.model.']

/** The same file with the names that a model has; one without wrappers is returned as it is. */
export function unwrapNames(file: SafetensorsFile): SafetensorsFile {
  const names = [...file.tensors.keys()]
  const adapter = names.find((name) => /\.lora_(?:A|B|embedding_[AB]|magnitude_vector)\b/.test(name))
  if (adapter !== undefined)
    throw new UserError(
      `${file.path}: tensor ${adapter.slice(0, 200)} belongs to an adapter that is not merged; merge it first ` +
        '(merge_and_unload() of PEFT), or give the model that it was made for, and the adapter with --adapter',
    )
  const rename = renaming(names)
  if (!names.some((name) => rename(name) !== name)) return file
  const tensors = new Map<string, TensorInfo>()
  for (const info of file.tensors.values()) {
    const name = rename(info.name)
    const other = tensors.get(name)
    if (other)
      throw new UserError(
        `${file.path}: tensors ${info.name} and ${other.name} are both ${name} without their wrappers`,
      )
    tensors.set(name, { ...info, name })
  }
  const part = (tensor: string | TensorInfo) => (typeof tensor === 'string' ? (tensors.get(tensor) ?? tensor) : tensor)
  return {
    ...file,
    tensors,
    read: (tensor) => file.read(part(tensor)),
    readRaw: (tensor) => file.readRaw(part(tensor)),
  }
}

function renaming(names: readonly string[]): (name: string) => string {
  let prefix = ''
  const inner = (name: string) => {
    // Twice, since a mark may follow another.
    const bare = name.replace(WRAPPERS, '$1').replace(WRAPPERS, '$1')
    return bare.startsWith(prefix) ? bare.slice(prefix.length) : bare
  }
  for (;;) {
    const next = PREFIXES.find((one) => names.every((name) => inner(name).startsWith(one)))
    if (names.length === 0 || next === undefined) break
    prefix += next
  }
  // A decoder that was saved without its head, as transformers' AutoModel does.
  const isBare = names.some((name) => inner(name) === 'embed_tokens.weight')
  return (name) => {
    const bare = inner(name)
    return isBare && !bare.startsWith('lm_head.') ? `model.${bare}` : bare
  }
}
