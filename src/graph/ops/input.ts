// Named inputs of a program (parameters among them) and constants.
import * as z from 'zod'
import type { DType, TensorData } from '../../core/types.ts'
import { dtype, shape } from '../attributes.ts'
import { defineOperation } from '../registry.ts'
import type { Shape } from '../shape.ts'
import { apply1, type Tensor } from '../tensor.ts'

export interface InputAttributes {
  name: string
  dtype: DType
  shape: Shape
}

export const inputOperation = defineOperation({
  name: 'input',
  inputs: [],
  outputs: ['value'],
  attributes: z.strictObject({ name: z.string(), dtype, shape }),
  infer: (_, { dtype, shape }) => [{ dtype, shape }],
  onnx: () => {
    throw new Error('inputs are declared by the program, not lowered')
  },
})

/** A value given when the program runs. Dimensions may be names. */
export const input = (name: string, dtype: DType, shape: Shape): Tensor =>
  apply1(inputOperation, [], { name, dtype, shape })

export const constantOperation = defineOperation({
  name: 'constant',
  inputs: [],
  outputs: ['value'],
  attributes: z.custom<TensorData>(),
  infer: (_, { dtype, shape }) => [{ dtype, shape }],
  onnx: (emit, _, value) => [emit.constant(value)],
})

export const constant = (value: TensorData): Tensor => apply1(constantOperation, [], value)

/** A float32 scalar. */
export const scalar = (value: number): Tensor => constant({ dtype: 'float32', shape: [], data: Float32Array.of(value) })
