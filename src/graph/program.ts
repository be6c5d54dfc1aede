// A program: named inputs and outputs of a traced graph, and its lowering to an ONNX model. Knows no runtime.

import { ONNX_TYPE } from '../core/element-types.ts'
import type { DType, TensorData } from '../core/types.ts'
import { createEmitter, type Emitter, type Subgraph, type Target } from './onnx/emitter.ts'
import { encodeModel } from './onnx/proto.ts'
import { type InputAttributes, inputOperation } from './ops/input.ts'
import { type Shape, shapeText } from './shape.ts'
import type { Node, Tensor } from './tensor.ts'

export interface Program {
  name: string
  outputs: Readonly<Record<string, Tensor>>
}

export interface Signature {
  name: string
  dtype: DType
  shape: Shape
}

/** Bytes of a file in which the values of an input lie. */
export interface FilePart {
  /** Name of the file. Default: that of all. */
  location?: string
  offset: number
  length: number
}

/** An input whose values are given when a model is loaded. */
export interface LoadedInput {
  name: string
  dtype: DType
  shape: readonly number[]
}

export interface ExportedProgram {
  /** The ONNX model. Parameters given as external data are referred to by name and not contained. */
  model: Uint8Array
  inputs: Signature[]
  outputs: Signature[]
  /** Names of the inputs that were made initializers with external data. */
  externalParameters: Signature[]
  /** By name, what takes the values of an input of `ExportOptions.loaded`: inputs of the model in the shapes that it uses. */
  loaded: ReadonlyMap<string, readonly LoadedInput[]>
}

/** Opset 23 is the first with RMSNormalization; com.microsoft holds ONNX Runtime's fused operators. */
const OPSET = 23
const IR_VERSION = 11

/** Nodes that the outputs need, inputs before users. */
export function topologicalOrder(outputs: readonly Tensor[]): Node[] {
  const order: Node[] = []
  const state = new Map<Node, 'open' | 'done'>()
  const stack: { node: Node; next: number }[] = []
  for (const output of outputs) {
    if (!state.has(output.node)) stack.push({ node: output.node, next: 0 })
    while (stack.length > 0) {
      const top = stack[stack.length - 1]
      if (state.get(top.node) === 'done') {
        stack.pop()
        continue
      }
      state.set(top.node, 'open')
      const input = top.node.inputs[top.next++]
      if (input === undefined) {
        state.set(top.node, 'done')
        order.push(top.node)
        stack.pop()
      } else if (!state.has(input.node)) stack.push({ node: input.node, next: 0 })
    }
  }
  return order
}

export interface ExportOptions {
  /** What is to run the model. Default: onnxruntime-node. */
  target?: Target
  /** Inputs to embed as constants instead: parameters of an inference model that is to be self-contained. */
  embed?: ReadonlyMap<string, TensorData>
  /** Inputs to refer to as external data, by name -> byte range of `location`, or of a file of their own. */
  external?: { location: string; tensors: ReadonlyMap<string, FilePart> }
  /** Inputs whose values are given once, when the model is loaded. */
  loaded?: ReadonlySet<string>
  /** Puts other nodes in place of some, of a program that is only run; both in an order in which they can be computed. */
  rewrite?(nodes: readonly Node[]): readonly Node[]
}

/** Lowers a program to ONNX. Inputs keep the order in which they were first used, so the bytes are reproducible. */
export function exportOnnx(program: Program, options: ExportOptions = {}): ExportedProgram {
  let place = ''
  const { target = 'onnxruntime-node' } = options
  const emit = createEmitter({ target, scopeName: () => place, viewStored })
  const names = new Map<Tensor, string>()
  const inputs: Signature[] = []
  const externalParameters: Signature[] = []
  const initializers: object[] = []
  const external = new Map<string, object>()
  const loaded = new Map<string, LoadedInput[]>()
  const nodes = topologicalOrder(Object.values(program.outputs))
  for (const node of options.rewrite?.(nodes) ?? nodes) {
    const operation = node.operation
    place = node.scope ? `${node.scope}/${operation.name}` : operation.name
    if (operation === (inputOperation as unknown)) {
      const { name } = node.attributes as InputAttributes
      const tensor = node.outputs[0]
      names.set(tensor, name)
      const embedded = options.embed?.get(name)
      const range = options.external?.tensors.get(name)
      if (embedded) initializers.push(tensorProto(name, embedded))
      else if (range && options.external) {
        externalParameters.push({ name, dtype: tensor.dtype, shape: tensor.shape })
        external.set(name, externalProto(name, tensor.shape, tensor.dtype))
      } else if (options.loaded?.has(name))
        loaded.set(name, [{ name, dtype: tensor.dtype, shape: tensor.shape.map(Number) }])
      else inputs.push({ name, dtype: tensor.dtype, shape: tensor.shape })
      continue
    }
    const inputNames = node.inputs.map((input) => {
      const name = names.get(input)
      if (name === undefined) throw new Error(`${operation.name} uses a tensor that was not lowered`)
      return name
    })
    const outputNames = operation.onnx(emit, inputNames, node.attributes as never, node)
    if (outputNames.length !== node.outputs.length)
      throw new Error(`${operation.name} lowered to ${outputNames.length} outputs instead of ${node.outputs.length}`)
    node.outputs.forEach((tensor, i) => {
      names.set(tensor, outputNames[i])
    })
  }
  function externalProto(name: string, shape: Shape, dtype: DType, source = name): object {
    const { location, offset, length } = options.external!.tensors.get(source)!
    return {
      name,
      dims: shape.map(Number),
      dataType: ONNX_TYPE[dtype],
      dataLocation: 1,
      externalData: [
        { key: 'location', value: location ?? options.external!.location },
        { key: 'offset', value: String(offset) },
        { key: 'length', value: String(length) },
      ],
    }
  }

  function viewStored(name: string, shape: readonly number[], dtype?: DType): string | undefined {
    const view = `${name} as ${dtype ?? ''}[${shape}]`
    const uses = loaded.get(name)
    if (uses) {
      if (!uses.some((use) => use.name === view)) uses.push({ name: view, dtype: dtype ?? uses[0].dtype, shape })
      return view
    }
    const parameter = externalParameters.find((other) => other.name === name)
    if (!parameter) return undefined
    external.set(view, externalProto(view, shape, dtype ?? parameter.dtype, name))
    return view
  }

  place = ''
  const outputs: Signature[] = []
  for (const [name, tensor] of Object.entries(program.outputs)) {
    const source = names.get(tensor)
    if (source === undefined) throw new Error(`output ${name} was not lowered`)
    if (inputs.some((other) => other.name === name)) throw new Error(`${name} is both an input and an output`)
    // A tensor that is two outputs keeps the first name; the second is a copy.
    const taken = outputs.some((other) => other.name === source)
    outputs.push({ name, dtype: tensor.dtype, shape: tensor.shape })
    renameOutput(emit, names, tensor, source, name, taken)
  }
  const used = new Set(inputNamesOf(emit.nodes))
  // A weight that only views use is not there in its own shape.
  for (const [name, proto] of external) if (used.has(name)) initializers.push(proto)
  for (const [name, uses] of loaded)
    loaded.set(
      name,
      uses.filter((use) => used.has(use.name)),
    )
  for (const [name, value] of emit.constants) if (used.has(name)) initializers.push(tensorProto(name, value))
  const model = encodeModel({
    irVersion: IR_VERSION,
    producerName: 'unmask',
    opsetImport: [
      { domain: '', version: OPSET },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph: {
      name: program.name,
      node: emit.nodes.map(nodeProto),
      initializer: initializers,
      input: [...inputs, ...[...loaded.values()].flat()].map(valueInfo),
      output: outputs.map(valueInfo),
    },
  })
  return { model, inputs, outputs, externalParameters, loaded }
}

/** Names that nodes use, those in subgraphs too. */
function* inputNamesOf(nodes: Emitter['nodes']): Generator<string> {
  for (const { inputs, attributes } of nodes) {
    yield* inputs
    for (const value of Object.values(attributes))
      if (typeof value === 'object' && 'body' in value) yield* inputNamesOf(value.body.nodes)
  }
}

/** Gives the producing node's output the program's name, so that no copy is made; falls back to Identity. */
function renameOutput(
  emit: Emitter,
  names: Map<Tensor, string>,
  tensor: Tensor,
  source: string,
  name: string,
  taken: boolean,
): void {
  const producer = emit.nodes.find((node) => node.outputs.includes(source))
  const shared = [...names.entries()].some(([other, value]) => other !== tensor && value === source)
  if (!producer || shared || taken) {
    emit.nodes.push({
      opType: 'Identity',
      domain: '',
      name: `output/${name}`,
      inputs: [source],
      outputs: [name],
      attributes: {},
    })
    return
  }
  for (const node of emit.nodes) {
    if (node.inputs.includes(source))
      (node as { inputs: readonly string[] }).inputs = node.inputs.map((input) => (input === source ? name : input))
    if (node.outputs.includes(source))
      (node as { outputs: readonly string[] }).outputs = node.outputs.map((output) =>
        output === source ? name : output,
      )
  }
  names.set(tensor, name)
}

const bytesOf = (value: TensorData): Uint8Array =>
  new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength)

function tensorProto(name: string, value: TensorData): object {
  return { name, dims: value.shape, dataType: ONNX_TYPE[value.dtype], rawData: bytesOf(value) }
}

function valueInfo({ name, dtype, shape }: Signature): object {
  return {
    name,
    type: {
      tensorType: {
        elemType: ONNX_TYPE[dtype],
        shape: {
          dim: shape.map((dim) => (typeof dim === 'number' ? { dimValue: dim } : { dimParam: dim })),
        },
      },
    },
  }
}

function nodeProto(node: Emitter['nodes'][number]): object {
  return {
    name: node.name,
    opType: node.opType,
    domain: node.domain,
    input: node.inputs,
    output: node.outputs,
    attribute: Object.entries(node.attributes).map(([name, value]) => {
      if (typeof value === 'number') return { name, type: 2, i: value }
      if (typeof value === 'string') return { name, type: 3, s: new TextEncoder().encode(value) }
      if (Array.isArray(value)) return { name, type: 7, ints: value }
      if ('float' in value) return { name, type: 1, f: value.float }
      return { name, type: 5, g: subgraphProto(value as Subgraph) }
    }),
  }
}

function subgraphProto(subgraph: Subgraph): object {
  return {
    name: subgraph.name,
    node: subgraph.body.nodes.map(nodeProto),
    initializer: [...subgraph.body.constants].map(([name, value]) => tensorProto(name, value)),
    input: subgraph.inputs.map(valueInfo),
    output: subgraph.outputs.map(valueInfo),
  }
}

/** One line per node, for tests and for people: `scope: name(inputs) -> shape`. */
export function describe(program: Program): string {
  return topologicalOrder(Object.values(program.outputs))
    .map((node) => {
      const inputs = node.inputs.map((tensor) => shapeText(tensor.shape)).join(', ')
      const outputs = node.outputs.map((tensor) => shapeText(tensor.shape)).join(', ')
      return `${node.scope ? `${node.scope}: ` : ''}${node.operation.name}(${inputs}) -> ${outputs}`
    })
    .join('\n')
}
