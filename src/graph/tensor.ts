// Traced tensors: a node records an operation and its inputs; nothing is computed here. Knows no particular operation.
import type { z } from 'zod'
import type { DType } from '../core/types.ts'
import type { Emitter } from './onnx/emitter.ts'
import { type Shape, shapeText } from './shape.ts'

export interface Tensor {
  readonly dtype: DType
  readonly shape: Shape
  readonly node: Node
  /** Which of the node's outputs this is. */
  readonly index: number
}

export interface Node {
  readonly operation: Operation<never>
  readonly inputs: readonly Tensor[]
  readonly attributes: unknown
  readonly outputs: Tensor[]
  /** Where in the model the node was traced, such as `model.layers.3.self_attn`. */
  readonly scope: string
}

export interface OutputType {
  dtype: DType
  shape: Shape
}

export interface GradientContext<A> {
  inputs: readonly Tensor[]
  outputs: readonly Tensor[]
  attributes: A
  /** Gradient of the loss for each output; undefined where the output does not reach the loss. */
  gradients: readonly (Tensor | undefined)[]
}

/** Shape rule, gradient and ONNX lowering of one operation. */
export interface Operation<A> {
  readonly name: string
  /** What the inputs are called, in order. A `?` marks one that may be absent, `...` any number. */
  readonly inputs: readonly string[]
  /** The same of the outputs. */
  readonly outputs: readonly string[]
  /** What attributes may be: plain data. Checked where a program is read, not where it is traced. */
  readonly attributes: z.ZodType<A>
  /** Types of the outputs. Throws through `fail` where the inputs do not fit. */
  infer(inputs: readonly Tensor[], attributes: A, fail: (why: string) => never): OutputType[]
  /** Gradients for the inputs, in order; undefined for those that have none. Absent: not differentiable. */
  gradient?(context: GradientContext<A>): (Tensor | undefined)[]
  /** Emits the ONNX nodes and returns the names of the outputs. */
  onnx(emit: Emitter, inputs: readonly string[], attributes: A, node: Node): string[]
}

/** A shape or type error, with the operation, the shapes and the place in the model. */
export class TraceError extends Error {
  override name = 'TraceError'
}

const scopes: string[] = []

/** Names the part of the model that `build` traces; scopes nest and are joined with dots. */
export function scope<T>(name: string, build: () => T): T {
  scopes.push(name)
  try {
    return build()
  } finally {
    scopes.pop()
  }
}

/** Applies an operation to tensors, by default in the scope that is open, and returns its outputs. */
export function apply<A>(
  operation: Operation<A>,
  inputs: readonly Tensor[],
  attributes: A,
  place = scopes.join('.'),
): Tensor[] {
  const fail = (why: string): never => {
    const shapes = inputs.map((tensor) => `${tensor.dtype}${shapeText(tensor.shape)}`).join(', ')
    throw new TraceError(`${operation.name}(${shapes})${place ? ` in ${place}` : ''}: ${why}`)
  }
  const types = operation.infer(inputs, attributes, fail)
  const node: Node = { operation: operation as Operation<never>, inputs, attributes, outputs: [], scope: place }
  types.forEach((type, index) => {
    node.outputs.push({ dtype: type.dtype, shape: type.shape, node, index })
  })
  return node.outputs
}

/** `apply` for operations with one output. */
export function apply1<A>(operation: Operation<A>, inputs: readonly Tensor[], attributes: A): Tensor {
  return apply(operation, inputs, attributes)[0]
}

export const isTensor = (value: unknown): value is Tensor =>
  typeof value === 'object' && value !== null && 'node' in value && 'shape' in value

/** Static width of the last axis. */
export function lastDim(tensor: Tensor): number {
  const dim = tensor.shape[tensor.shape.length - 1]
  if (typeof dim !== 'number') throw new TraceError(`the last axis of ${shapeText(tensor.shape)} must be static`)
  return dim
}
