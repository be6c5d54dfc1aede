// Collects ONNX nodes and constants while a graph is lowered. Knows the file format, not the operations.
import type { DType, TensorData } from '../../core/types.ts'
import type { Dim, Shape } from '../shape.ts'

/** What runs a lowered program: few operations differ, where one has no kernel that another has. */
export type Target = 'onnxruntime-node' | 'onnxruntime-web'

/** A subgraph attribute (the body of Scan). */
export interface Subgraph {
  name: string
  inputs: { name: string; dtype: DType; shape: Shape }[]
  outputs: { name: string; dtype: DType; shape: Shape }[]
  body: Emitter
}

/** `{float}` marks a float attribute; a plain number is an integer. */
export type AttributeValue = number | { float: number } | string | readonly number[] | Subgraph

export interface EmittedNode {
  opType: string
  domain: string
  name: string
  inputs: readonly string[]
  outputs: readonly string[]
  attributes: Readonly<Record<string, AttributeValue>>
}

export interface NodeOptions {
  domain?: 'com.microsoft'
  attributes?: Record<string, AttributeValue>
  /** Number of outputs, 1 by default. */
  outputs?: number
}

export interface Emitter {
  readonly target: Target
  readonly nodes: EmittedNode[]
  readonly constants: Map<string, TensorData>
  /** Emits a node; returns its output names. Empty input names are absent optional inputs. */
  node(opType: string, inputs: readonly string[], options?: NodeOptions): string[]
  /** `node` for the common case of one output. */
  op(opType: string, inputs: readonly string[], attributes?: Record<string, AttributeValue>): string
  /** The same for ONNX Runtime's contributed operators. */
  contrib(opType: string, inputs: readonly string[], attributes?: Record<string, AttributeValue>): string
  constant(value: TensorData): string
  float(value: number): string
  /** An int64 scalar. */
  int(value: number | bigint): string
  ints(values: readonly number[]): string
  /** Reshape where at most one dimension of `to` is inferred; symbolic dimensions that stay in place are copied. */
  reshape(input: string, from: Shape, to: Shape): string
  /** The same values in another static shape: of a weight that the model only refers to, a second reference. */
  view(input: string, shape: readonly number[]): string
  /**
   * The numbers that the bytes of a weight hold, [..., bytes] as uint4 in another static shape, where the model only refers to
   * the weight; undefined where it is a tensor of the program.
   */
  viewNibbles(input: string, shape: readonly number[]): string | undefined
  /** What `make` gives the first time that it is asked for by this key: the same tensor for several operations. */
  once(key: string, make: () => string): string
  /** A body for a subgraph attribute; it shares the naming of this emitter. */
  body(): Emitter
}

export interface EmitterOptions {
  target: Target
  /** Where in the model the node is that is being lowered. */
  scopeName(): string
  /** Refers to a weight outside the model in another shape, or type; undefined for other tensors. */
  viewStored(name: string, shape: readonly number[], dtype?: DType): string | undefined
}

export function createEmitter(options: EmitterOptions, counter = { next: 0 }): Emitter {
  const { target, scopeName, viewStored } = options
  const nodes: EmittedNode[] = []
  const constants = new Map<string, TensorData>()
  const known = new Map<string, string>()
  const made = new Map<string, string>()
  const fresh = (hint: string) => `${hint}_${counter.next++}`
  const emitter: Emitter = {
    target,
    nodes,
    constants,
    node(opType, inputs, options = {}) {
      const place = scopeName()
      const name = fresh(place ? `${place}/${opType}` : opType)
      const count = options.outputs ?? 1
      const outputs = Array.from({ length: count }, (_, i) => (count === 1 ? `${name}:0` : `${name}:${i}`))
      nodes.push({
        opType,
        domain: options.domain ?? '',
        name,
        inputs,
        outputs,
        attributes: options.attributes ?? {},
      })
      return outputs
    },
    op: (opType, inputs, attributes) => emitter.node(opType, inputs, { attributes })[0],
    contrib: (opType, inputs, attributes) => emitter.node(opType, inputs, { attributes, domain: 'com.microsoft' })[0],
    constant(value) {
      const small = value.data.length <= 16
      const key = small ? `${value.dtype}[${value.shape}]${Array.from(value.data as ArrayLike<number>)}` : ''
      const seen = small ? known.get(key) : undefined
      if (seen !== undefined) return seen
      const name = fresh('constant')
      constants.set(name, value)
      if (small) known.set(key, name)
      return name
    },
    float: (value) => emitter.constant({ dtype: 'float32', shape: [], data: Float32Array.of(value) }),
    int: (value) => emitter.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(value)) }),
    ints: (values) =>
      emitter.constant({ dtype: 'int64', shape: [values.length], data: BigInt64Array.from(values.map(BigInt)) }),
    reshape(input, from, to) {
      return emitter.op('Reshape', [input, emitter.ints(reshapeTarget(from, to))])
    },
    view: (input, shape) => viewStored(input, shape) ?? emitter.op('Reshape', [input, emitter.ints(shape)]),
    viewNibbles: (input, shape) => viewStored(input, shape, 'uint4'),
    once(key, make) {
      const name = made.get(key) ?? make()
      made.set(key, name)
      return name
    },
    body: () => createEmitter(options, counter),
  }
  return emitter
}

/** The shape operand of Reshape: numbers as they are, 0 for a symbolic dimension that stays at its index, -1 for one other. */
export function reshapeTarget(from: Shape, to: Shape): number[] {
  let inferred = false
  return to.map((dim: Dim, i) => {
    if (typeof dim === 'number') return dim
    if (from[i] === dim) return 0
    if (inferred) throw new Error(`cannot reshape [${from}] to [${to}]: more than one dimension would be inferred`)
    inferred = true
    return -1
  })
}
