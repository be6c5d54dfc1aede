// The order in which nodes are computed. ONNX Runtime computes a node as soon as its inputs are there; what must wait for
// something else is made to depend on it.
import type { Shape } from '../shape.ts'
import type { Emitter } from './emitter.ts'

/** `x` itself, but not before `y` has been computed: the shape operand of a Reshape to the same shape depends on y. */
export function emitAfter(emit: Emitter, x: { name: string; shape: Shape }, y: string): string {
  const nothing = emit.op('Mul', [emit.op('Size', [y]), emit.op('Squeeze', [emit.ints([0])])])
  const isStatic = x.shape.every((dim) => typeof dim === 'number')
  const same = isStatic ? emit.ints(x.shape.map(Number)) : emit.op('Shape', [x.name])
  return emit.op('Reshape', [x.name, emit.op('Add', [same, nothing])])
}
