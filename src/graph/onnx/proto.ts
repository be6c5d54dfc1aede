// The part of the ONNX format that unmask writes, as a protobuf descriptor (field numbers from onnx.proto3).
import protobuf from 'protobufjs/light.js'

type Field = [type: string, id: number, rule?: 'repeated']

const message = (fields: Record<string, Field>) => ({
  fields: Object.fromEntries(
    Object.entries(fields).map(([name, [type, id, rule]]) => [name, rule ? { type, id, rule } : { type, id }]),
  ),
})

const root = protobuf.Root.fromJSON({
  nested: {
    AttributeProto: message({
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
    }),
    ValueInfoProto: message({ name: ['string', 1], type: ['TypeProto', 2] }),
    NodeProto: message({
      input: ['string', 1, 'repeated'],
      output: ['string', 2, 'repeated'],
      name: ['string', 3],
      opType: ['string', 4],
      attribute: ['AttributeProto', 5, 'repeated'],
      docString: ['string', 6],
      domain: ['string', 7],
    }),
    ModelProto: message({
      irVersion: ['int64', 1],
      producerName: ['string', 2],
      producerVersion: ['string', 3],
      domain: ['string', 4],
      modelVersion: ['int64', 5],
      graph: ['GraphProto', 7],
      opsetImport: ['OperatorSetIdProto', 8, 'repeated'],
      metadataProps: ['StringStringEntryProto', 14, 'repeated'],
    }),
    StringStringEntryProto: message({ key: ['string', 1], value: ['string', 2] }),
    GraphProto: message({
      node: ['NodeProto', 1, 'repeated'],
      name: ['string', 2],
      initializer: ['TensorProto', 5, 'repeated'],
      input: ['ValueInfoProto', 11, 'repeated'],
      output: ['ValueInfoProto', 12, 'repeated'],
    }),
    TensorProto: message({
      dims: ['int64', 1, 'repeated'],
      dataType: ['int32', 2],
      name: ['string', 8],
      rawData: ['bytes', 9],
      externalData: ['StringStringEntryProto', 13, 'repeated'],
      dataLocation: ['int32', 14],
    }),
    TensorShapeProto: message({ dim: ['DimensionProto', 1, 'repeated'] }),
    DimensionProto: message({ dimValue: ['int64', 1], dimParam: ['string', 2] }),
    TensorTypeProto: message({ elemType: ['int32', 1], shape: ['TensorShapeProto', 2] }),
    TypeProto: message({ tensorType: ['TensorTypeProto', 1] }),
    OperatorSetIdProto: message({ domain: ['string', 1], version: ['int64', 2] }),
  },
})

export const ModelProto = root.lookupType('ModelProto')
