// A session in WebAssembly and its runs. It knows tensors, not what the model is.
import type { DType, TensorData } from '../../core/types.ts'
import type { Resident, Source } from '../executor.ts'
import { check, type OrtModule, textAt, thrown } from './module.ts'
import { tensorAt, tensorOf, valuesOf } from './tensors.ts'

export interface WebSession {
  /** Runs with `feeds`, of which those that the model does not take are passed over, and what is bound. */
  run(feeds: Record<string, Source>, fetches: Record<string, Resident | null>): Promise<Record<string, TensorData>>
  /** What all runs have, until the next call. */
  bind(feeds: Record<string, Resident>, fetches: Record<string, Resident>): void
  /** Lets go of what is bound if a buffer of this name is part of it. */
  forget(name: string): void
  release(): void
}

export interface SessionParts {
  /** Names of the model's inputs. */
  inputs: ReadonlySet<string>
  /** Where part of a resident buffer lies. */
  partOf(part: Resident): { dtype: DType; address: number }
}

/** Inputs or outputs: the address of each name, and its tensor; 0 is an output that ONNX Runtime makes. */
interface Values {
  names: number[]
  tensors: number[]
}

/** The session with this handle, which is its own from now on. */
export function createSession(module: OrtModule, handle: number, { inputs, partOf }: SessionParts): WebSession {
  const texts = new Map<string, number>()
  let boundInputs: Values = { names: [], tensors: [] }
  let boundOutputs: Values = { names: [], tensors: [] }
  const boundResidents = new Set<string>()

  function nameAt(name: string): number {
    const address = texts.get(name) ?? textAt(module, name)
    texts.set(name, address)
    return address
  }

  function tensorOver(part: Resident): number {
    const { dtype, address } = partOf(part)
    return tensorAt(module, dtype, address, part.shape)
  }

  function valuesOver(parts: readonly [string, Resident][]): Values {
    for (const [, { resident }] of parts) boundResidents.add(resident)
    return { names: parts.map(([name]) => nameAt(name)), tensors: parts.map(([, part]) => tensorOver(part)) }
  }

  function unbind(): void {
    for (const tensor of [...boundInputs.tensors, ...boundOutputs.tensors]) module._OrtReleaseTensor(tensor)
    boundInputs = { names: [], tensors: [] }
    boundOutputs = { names: [], tensors: [] }
    boundResidents.clear()
  }

  /** Addresses in a row, on the module's stack. */
  function list(values: readonly number[]): number {
    const address = module.stackAlloc(4 * values.length)
    for (const [i, value] of values.entries()) module.setValue(address + 4 * i, value, '*')
    return address
  }

  return {
    async run(feeds, fetches) {
      const stack = module.stackSave()
      const tensors: number[] = []
      const memory: number[] = []
      try {
        const given: Values = { names: [...boundInputs.names], tensors: [...boundInputs.tensors] }
        for (const [name, source] of Object.entries(feeds)) {
          if (!inputs.has(name)) continue
          const made = 'data' in source ? tensorOf(module, source) : { tensor: tensorOver(source), address: undefined }
          if (made.address !== undefined) memory.push(made.address)
          tensors.push(made.tensor)
          given.names.push(nameAt(name))
          given.tensors.push(made.tensor)
        }
        const wanted: Values = { names: [...boundOutputs.names], tensors: [...boundOutputs.tensors] }
        for (const [name, target] of Object.entries(fetches)) {
          const tensor = target ? tensorOver(target) : 0
          if (target) tensors.push(tensor)
          wanted.names.push(nameAt(name))
          wanted.tensors.push(tensor)
        }
        const results = list(wanted.tensors)
        const code = await module._OrtRun(
          handle,
          list(given.names),
          list(given.tensors),
          given.names.length,
          list(wanted.names),
          wanted.names.length,
          results,
          0,
        )
        check(module, code, 'running')
        const outputs: Record<string, TensorData> = {}
        for (const [i, [name, target]] of Object.entries(fetches).entries()) {
          if (target) continue
          const tensor = module.getValue(results + 4 * (boundOutputs.names.length + i), '*')
          tensors.push(tensor)
          outputs[name] = valuesOf(module, tensor)
        }
        return outputs
      } catch (error) {
        throw thrown(error)
      } finally {
        for (const tensor of tensors) module._OrtReleaseTensor(tensor)
        for (const address of memory) module._free(address)
        module.stackRestore(stack)
      }
    },
    bind(feeds, fetches) {
      unbind()
      boundInputs = valuesOver(Object.entries(feeds).filter(([name]) => inputs.has(name)))
      boundOutputs = valuesOver(Object.entries(fetches))
    },
    forget(name) {
      if (boundResidents.has(name)) unbind()
    },
    release() {
      unbind()
      for (const address of texts.values()) module._free(address)
      texts.clear()
      module._OrtReleaseSession(handle)
    },
  }
}
