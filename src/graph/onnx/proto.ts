// The part of the ONNX format that unmask writes: its messages (field numbers from onnx.proto3) and their encoding. Makes no code
// at run time, which pages with a strict policy forbid.
import protobuf from 'protobufjs/minimal.js'

const { Writer } = protobuf

/** Type and number of a field. */
type Field = [type: string, id: number, rule?: 'repeated']

/** The messages, their fields in the order of their numbers. */
export const onnxMessages: Readonly<Record<string, Readonly<Record<string, Field>>>> = {
  AttributeProto: {
    name: ['string', 1],
    f: ['float', 2],
    i: ['int64', 3],
    s: ['bytes', 4],
    t: ['TensorProto', 5],
    g: ['GraphProto', 6],
    floats: ['float', 7, 'repeated'],
    ints: ['int64', 8, 'repeated'],
    strings: ['bytes', 9, 'repeated'],
    type: ['int32', 20],
  },
  ValueInfoProto: { name: ['string', 1], type: ['TypeProto', 2] },
  NodeProto: {
    input: ['string', 1, 'repeated'],
    output: ['string', 2, 'repeated'],
    name: ['string', 3],
    opType: ['string', 4],
    attribute: ['AttributeProto', 5, 'repeated'],
    docString: ['string', 6],
    domain: ['string', 7],
  },
  ModelProto: {
    irVersion: ['int64', 1],
    producerName: ['string', 2],
    producerVersion: ['string', 3],
    domain: ['string', 4],
    modelVersion: ['int64', 5],
    graph: ['GraphProto', 7],
    opsetImport: ['OperatorSetIdProto', 8, 'repeated'],
    metadataProps: ['StringStringEntryProto', 14, 'repeated'],
  },
  StringStringEntryProto: { key: ['string', 1], value: ['string', 2] },
  GraphProto: {
    node: ['NodeProto', 1, 'repeated'],
    name: ['string', 2],
    initializer: ['TensorProto', 5, 'repeated'],
    input: ['ValueInfoProto', 11, 'repeated'],
    output: ['ValueInfoProto', 12, 'repeated'],
  },
  TensorProto: {
    dims: ['int64', 1, 'repeated'],
    dataType: ['int32', 2],
    name: ['string', 8],
    rawData: ['bytes', 9],
    externalData: ['StringStringEntryProto', 13, 'repeated'],
    dataLocation: ['int32', 14],
  },
  TensorShapeProto: { dim: ['DimensionProto', 1, 'repeated'] },
  DimensionProto: { dimValue: ['int64', 1], dimParam: ['string', 2] },
  TensorTypeProto: { elemType: ['int32', 1], shape: ['TensorShapeProto', 2] },
  TypeProto: { tensorType: ['TensorTypeProto', 1] },
  OperatorSetIdProto: { domain: ['string', 1], version: ['int64', 2] },
}

/** Scalars by the type of their field. */
const scalars = ['float', 'int32', 'int64', 'string', 'bytes'] as const
type Scalar = (typeof scalars)[number]
const isScalar = (type: string): type is Scalar => (scalars as readonly string[]).includes(type)

/** Wire types of the format. */
const [VARINT, DELIMITED, BITS_32] = [0, 2, 5]
const wireTypes: Record<Scalar, number> = {
  ...{ float: BITS_32, int32: VARINT, int64: VARINT, string: DELIMITED, bytes: DELIMITED },
}

/** Encodes a ModelProto given as a plain object; fields that are missing are left out. */
export const encodeModel = (model: object): Uint8Array => encode(Writer.create(), 'ModelProto', model).finish()

function encode(writer: protobuf.Writer, message: string, values: object): protobuf.Writer {
  for (const [name, [type, id, rule]] of Object.entries(onnxMessages[message]!)) {
    const value = (values as Record<string, unknown>)[name]
    // A single 0 or empty text is what a reader takes where there is none.
    if (value === undefined || (!rule && (value === 0 || value === ''))) continue
    const each = rule ? [...(value as Iterable<unknown>)] : [value]
    if (rule && isScalar(type) && wireTypes[type] !== DELIMITED) {
      // Numbers of a list are one field.
      if (each.length === 0) continue
      writer.uint32((id << 3) | DELIMITED).fork()
      for (const number of each) writer[type](number as never)
      writer.ldelim()
      continue
    }
    for (const one of each) {
      if (isScalar(type)) writer.uint32((id << 3) | wireTypes[type])[type](one as never)
      else encode(writer.uint32((id << 3) | DELIMITED).fork(), type, one as object).ldelim()
    }
  }
  return writer
}
