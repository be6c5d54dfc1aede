// A program as a file that other programs can read: JSON for its operations, safetensors for its constants. The format is
// described in docs/programs.md.
import * as z from 'zod'
import { type TensorData, UserError } from '../core/types.ts'
import { checkJsonStructure } from '../formats/json.ts'
import { decodeTensors, encodeTensors } from '../formats/safetensors.ts'
import { dtype, index, shape } from './attributes.ts'
import { operations } from './ops/index.ts'
import { constantOperation, inputOperation } from './ops/input.ts'
import { type Program, topologicalOrder } from './program.ts'
import { sameShape, shapeText } from './shape.ts'
import { apply, type Node, type Operation, type OutputType, type Tensor, TraceError } from './tensor.ts'

export interface SerializedProgram {
  /** The operations, in an order in which they can be computed. */
  json: string
  /** The constants that they refer to, as a safetensors file. */
  constants: Uint8Array
}

const FORMAT = 'unmask-program'
const VERSION = 1

/** More than a mixture of experts of any published size takes. */
const MAX_CHARACTERS = 2 ** 26

/** The file, its nodes, a node, its attributes, and what those may hold. */
const MAX_DEPTH = 8

const nodeSchema = z.strictObject({
  operation: z.string(),
  attributes: z.unknown(),
  /** Indices of values: the outputs of all nodes, in order. */
  inputs: z.array(index),
  outputs: z.array(z.strictObject({ dtype, shape })),
  scope: z.string(),
})

const programSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  name: z.string(),
  nodes: z.array(nodeSchema),
  outputs: z.array(z.strictObject({ name: z.string(), value: index })),
})

/** Attributes of a constant in the file: the name of its tensor in the safetensors file. */
const constantReference = z.strictObject({ tensor: z.string() })

/** Writes a program. Throws where attributes are not plain data. */
export function serializeProgram(program: Program): SerializedProgram {
  const values = new Map<Tensor, number>()
  const constants = new Map<string, TensorData>()
  const nodes = topologicalOrder(Object.values(program.outputs)).map((node) => {
    const inputs = node.inputs.map((tensor) => values.get(tensor)!)
    for (const tensor of node.outputs) values.set(tensor, values.size)
    const outputs = node.outputs.map(({ dtype, shape }) => ({ dtype, shape }))
    const attributes = attributesOf(node, constants)
    return JSON.stringify({ operation: node.operation.name, attributes, inputs, outputs, scope: node.scope })
  })
  const outputs = Object.entries(program.outputs).map(([name, tensor]) => ({ name, value: values.get(tensor) }))
  const head = JSON.stringify({ format: FORMAT, version: VERSION, name: program.name })
  // A line per node, so that files can be read and compared.
  const json = `${head.slice(0, -1)},"nodes":[\n${nodes.join(',\n')}\n],"outputs":${JSON.stringify(outputs)}}\n`
  return { json, constants: encodeTensors(constants) }
}

function attributesOf({ operation, attributes }: Node, constants: Map<string, TensorData>): unknown {
  if (operation === (constantOperation as unknown)) {
    const tensor = `constant.${constants.size}`
    constants.set(tensor, attributes as TensorData)
    return { tensor }
  }
  const checked = operation.attributes.safeParse(attributes)
  if (!checked.success) throw new Error(`${operation.name}: its attributes cannot be written: ${firstIssue(checked)}`)
  // In the order of the schema, whatever the order in which they were given.
  return checked.data
}

const firstIssue = ({ error }: z.ZodSafeParseError<unknown>): string => {
  const [{ path, message }] = error.issues
  return path.length > 0 ? `${path.join('.')}: ${message}` : message
}

/**
 * Reads a program that `serializeProgram`, or another program, has written; its operations are traced again and checked.
 * Throws UserError that names `path`, the node and what is wrong.
 */
export function parseProgram({ json, constants }: SerializedProgram, path = 'program'): Program {
  const { name, nodes, outputs } = parseJson(json, path)
  const tensors = decodeTensors(`${path}: constants`, constants)
  const values: Tensor[] = []
  const inputNames = new Set<string>()
  for (const [i, node] of nodes.entries()) {
    const fail = (why: string): never => {
      throw new UserError(`${path}: node ${i} (${node.operation}): ${why}`)
    }
    const operation = operations.get(node.operation)
    if (!operation) return fail('there is no such operation')
    const inputs = node.inputs.map(
      (value) => values[value] ?? fail(`input ${value} is not a value of a node before it`),
    )
    checkCount(operation, inputs.length, fail)
    const attributes = parseAttributes(operation, node.attributes, tensors, fail)
    if (operation === (inputOperation as unknown)) {
      const { name } = attributes as { name: string }
      if (inputNames.has(name)) fail(`there are two inputs ${JSON.stringify(name)}`)
      inputNames.add(name)
    }
    values.push(...trace(operation, { inputs, attributes, outputs: node.outputs, scope: node.scope }, fail))
  }
  const names = new Set<string>()
  const tensorOf = ({ name, value }: { name: string; value: number }): [string, Tensor] => {
    if (names.has(name)) throw new UserError(`${path}: there are two outputs ${JSON.stringify(name)}`)
    if (!values[value]) throw new UserError(`${path}: output ${JSON.stringify(name)}: there is no value ${value}`)
    names.add(name)
    return [name, values[value]]
  }
  return { name, outputs: Object.fromEntries(outputs.map(tensorOf)) }
}

type Fail = (why: string) => never

function parseJson(json: string, path: string): z.infer<typeof programSchema> {
  if (json.length > MAX_CHARACTERS)
    throw new UserError(`${path}: ${json.length} characters are more than the ${MAX_CHARACTERS} that are accepted`)
  let value: unknown
  try {
    checkJsonStructure(json, MAX_DEPTH)
    value = JSON.parse(json)
  } catch (error) {
    throw new UserError(`${path}: not valid JSON: ${(error as Error).message}`)
  }
  const parsed = programSchema.safeParse(value)
  if (!parsed.success) throw new UserError(`${path}: not a program: ${firstIssue(parsed)}`)
  return parsed.data
}

function checkCount({ inputs }: Operation<never>, count: number, fail: Fail): void {
  const required = inputs.filter((name) => !/[?.]$/.test(name)).length
  const most = inputs.some((name) => name.endsWith('...')) ? Number.POSITIVE_INFINITY : inputs.length
  if (count < required || count > most) fail(`it takes ${inputs.join(', ') || 'no inputs'}; there are ${count}`)
}

function parseAttributes(
  operation: Operation<never>,
  attributes: unknown,
  tensors: ReadonlyMap<string, TensorData>,
  fail: Fail,
): unknown {
  const schema: z.ZodType = operation === (constantOperation as unknown) ? constantReference : operation.attributes
  const parsed = schema.safeParse(attributes)
  if (!parsed.success) return fail(`attributes: ${firstIssue(parsed)}`)
  if (schema !== constantReference) return parsed.data
  const { tensor } = parsed.data as z.infer<typeof constantReference>
  return tensors.get(tensor) ?? fail(`the constants have no tensor ${JSON.stringify(tensor)}`)
}

interface Application {
  inputs: readonly Tensor[]
  attributes: unknown
  /** What the file says that the outputs are. */
  outputs: readonly OutputType[]
  scope: string
}

/** Applies an operation as a file says. */
function trace(operation: Operation<never>, { inputs, attributes, outputs, scope }: Application, fail: Fail): Tensor[] {
  let made: Tensor[]
  try {
    made = apply(operation, inputs, attributes as never, scope)
  } catch (error) {
    // Shape rules expect what the functions that trace give them, and may fail in other ways on what a file says.
    return fail(error instanceof TraceError ? error.message : 'its inputs or attributes do not fit')
  }
  const text = (types: readonly OutputType[]) =>
    types.map(({ dtype, shape }) => `${dtype}${shapeText(shape)}`).join(', ')
  const same = (type: OutputType, i: number) => type.dtype === made[i].dtype && sameShape(type.shape, made[i].shape)
  if (made.length !== outputs.length || !outputs.every(same))
    fail(`it gives ${text(made)}, the file says ${text(outputs)}`)
  return made
}
