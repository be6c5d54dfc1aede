// Parameters by name: a model asks for them as it is traced, and each becomes one program input.
import { input } from '../graph/ops/input.ts'
import { scope, type Tensor } from '../graph/tensor.ts'

export interface Weights {
  (name: string): Tensor
  has(name: string): boolean
  /** The weights below a prefix; `trace` also names the scope for errors. */
  in(prefix: string): Weights
  trace<T>(prefix: string, build: (weights: Weights) => T): T
  /** Every tensor asked for so far, by full name. */
  readonly used: ReadonlyMap<string, Tensor>
}

/** Weights of the given shapes. Asking for an unknown name is an error of the model's code. */
export function createWeights(shapes: ReadonlyMap<string, readonly number[]>): Weights {
  const used = new Map<string, Tensor>()
  const below = (prefix: string): Weights => {
    const full = (name: string) => (prefix ? `${prefix}.${name}` : name)
    const weights = (name: string): Tensor => {
      const key = full(name)
      const known = used.get(key)
      if (known) return known
      const shape = shapes.get(key)
      if (!shape) throw new Error(`the model has no parameter ${key}`)
      const tensor = input(key, 'float32', shape)
      used.set(key, tensor)
      return tensor
    }
    return Object.assign(weights, {
      has: (name: string) => shapes.has(full(name)),
      in: (name: string) => below(full(name)),
      trace: <T>(name: string, build: (weights: Weights) => T): T => scope(name, () => build(below(full(name)))),
      used,
    })
  }
  return below('')
}
