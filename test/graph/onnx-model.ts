// Reading ONNX models that were written: by protobufjs's own reader, from the same descriptor.
import protobuf from 'protobufjs/light.js'
import { onnxMessages } from '../../src/graph/onnx/proto.ts'

const nested = Object.fromEntries(
  Object.entries(onnxMessages).map(([message, fields]) => [
    message,
    {
      fields: Object.fromEntries(
        Object.entries(fields).map(([name, [type, id, rule]]) => [name, { type, id, ...(rule ? { rule } : {}) }]),
      ),
    },
  ]),
)

export const ModelProto = protobuf.Root.fromJSON({ nested }).lookupType('ModelProto')
