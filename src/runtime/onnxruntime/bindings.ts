// Inputs or outputs of a run as the C API takes them: an array of names and one of tensors.
import { api } from './api.ts'
import { addressOf, nulTerminated, words } from './memory.ts'
import { tensorOver, type Value } from './values.ts'

export interface Bindings {
  /** Keeps the memory of names and values reachable. */
  readonly parts: readonly (readonly [name: string, value: Value | null])[]
  readonly names: BigUint64Array
  /** 0 for an output that ONNX Runtime makes. */
  readonly values: BigUint64Array
  release(): void
}

/** Makes bindings; the text of a name is made once. Null stands for an output that ONNX Runtime makes. */
export function createBinder(): (parts: Bindings['parts']) => Bindings {
  const texts = new Map<string, Buffer>()
  const textOf = (name: string): Buffer => {
    const text = texts.get(name) ?? nulTerminated(name)
    texts.set(name, text)
    return text
  }
  return (parts) => {
    const [names, values] = [words(parts.length), words(parts.length)]
    const release = () => {
      for (const value of values) if (value) api.ReleaseValue(value)
    }
    try {
      for (const [i, [name, value]] of parts.entries()) {
        names[i] = addressOf(textOf(name))
        if (value) values[i] = tensorOver(value)
      }
    } catch (error) {
      release()
      throw error
    }
    return { parts, names, values, release }
  }
}

/** The names, or the values, of both. */
export function joined(a: Bindings, b: Bindings, which: 'names' | 'values'): BigUint64Array {
  const all = words(a.parts.length + b.parts.length)
  all.set(a[which].subarray(0, a.parts.length))
  all.set(b[which].subarray(0, b.parts.length), a.parts.length)
  return all
}
