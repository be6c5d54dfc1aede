// Quantised matrices. `dequantize` names one; `linear` and `gatherRows` recognise it and use ONNX Runtime's kernels for
// such matrices, so that it never exists in float32, or, where an adapter is trained on it, make it float32 for one product.
import * as z from 'zod'
import { ONNX_TYPE } from '../../core/element-types.ts'
import { count } from '../attributes.ts'
import type { Emitter } from '../onnx/emitter.ts'
import { integerProduct, integerRows } from '../onnx/integer-products.ts'
import { emitAfter } from '../onnx/order.ts'
import { timesTransposed } from '../onnx/products.ts'
import { defineOperation } from '../registry.ts'
import { type Shape, sameShape } from '../shape.ts'
import { apply1, type Node, type Operation, type Tensor } from '../tensor.ts'
import { emitHalfLinear } from './half.ts'
import { sum } from './reduce.ts'

const format = z.strictObject({
  bits: z.union([z.literal(4), z.literal(8)]),
  blockSize: count,
  asymmetric: z.boolean(),
  offsets: z.boolean().optional(),
  activations: z.literal(8).optional(),
})

const matrixAttributes = z.strictObject({
  format,
  /** Columns of the matrix, a multiple of the block size. */
  width: count,
  /**
   * Products are those of the float32 matrix, which is made for each of them, instead of kernels that round the inputs too. For
   * training. Default false.
   */
  exact: z.boolean().optional(),
})
type MatrixAttributes = z.infer<typeof matrixAttributes>

const dequantizeOperation = defineOperation({
  name: 'dequantize',
  inputs: ['packed', 'scales', 'zeroPointsOrOffsets?'],
  outputs: ['matrix'],
  attributes: matrixAttributes,
  infer([packed, scales, third], { format, width }, fail) {
    const { bits, blockSize, offsets, activations } = format
    const blocks = width / blockSize
    if (!Number.isInteger(blocks)) fail(`rows of ${width} are not whole blocks of ${blockSize}`)
    const [out] = packed.shape
    if (activations) {
      if (bits !== 8 || blocks !== 1 || third) fail('activations in 8 bits need rows in 8 bits with a scale alone')
      if (packed.dtype !== 'int8' || !sameShape(packed.shape, [out, width]))
        fail(`the numbers must be int8 [out, ${width}]`)
      if (scales.dtype !== 'float32' || !sameShape(scales.shape, [out])) fail(`the scales must be float32 [${out}]`)
      return [{ dtype: 'float32', shape: [out, width] }]
    }
    if (packed.dtype !== 'uint8' || !sameShape(packed.shape, [out, blocks, (blockSize * bits) / 8]))
      fail(`the numbers must be uint8 [out, ${blocks}, ${(blockSize * bits) / 8}]`)
    if (scales.dtype !== 'float32' || !sameShape(scales.shape, [out, blocks]))
      fail(`the scales must be float32 [${out}, ${blocks}]`)
    const bytes = Math.ceil((blocks * bits) / 8)
    const zeroPoints = offsets ? undefined : third
    if (offsets && (third.dtype !== 'float32' || !sameShape(third.shape, [out, blocks])))
      fail(`the offsets must be float32 [${out}, ${blocks}]`)
    if (zeroPoints && (zeroPoints.dtype !== 'uint8' || !sameShape(zeroPoints.shape, [out, bytes])))
      fail(`the zero points must be uint8 [${out}, ${bytes}]`)
    return [{ dtype: 'float32', shape: [out, width] }]
  },
  onnx: () => {
    throw new Error('a quantised matrix can only be used by linear and gatherRows')
  },
})

interface StoredTensors {
  packed: Tensor
  scales: Tensor
  /** Where the format is asymmetric. */
  zeroPoints: Tensor | undefined
  /** Where the format has offsets. */
  offsets: Tensor | undefined
}

/** The matrix [out, width] that tensors store; see `QuantizedParameter`. */
export function dequantize(
  { packed, scales, zeroPoints, offsets }: StoredTensors,
  attributes: MatrixAttributes,
): Tensor {
  const third = zeroPoints ?? offsets
  return apply1(dequantizeOperation, third ? [packed, scales, third] : [packed, scales], attributes)
}

/** What a quantised matrix is made of; undefined for any other tensor. */
function storage({ node }: Tensor): { inputs: readonly Tensor[]; attributes: MatrixAttributes } | undefined {
  if (node.operation !== (dequantizeOperation as unknown)) return undefined
  return { inputs: node.inputs, attributes: node.attributes as MatrixAttributes }
}

const linearOperation = defineOperation({
  name: 'quantizedLinear',
  inputs: ['x', 'packed', 'scales', 'zeroPointsOrOffsets?', 'bias?'],
  outputs: ['y'],
  attributes: matrixAttributes,
  infer([x, packed], { width }, fail) {
    const last = x.shape[x.shape.length - 1]
    if (last !== width) fail(`the input's last size ${last} is not the weight's ${width}`)
    return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), packed.shape[0]] }]
  },
  /** The matrix is frozen: only the input has a gradient, and a bias. */
  gradient({ inputs: [x, ...others], attributes, gradients: [dy] }) {
    const d = dy as Tensor
    const stored = others.slice(0, storedInputs(attributes))
    const bias = others.length > stored.length
    return [
      apply1(backOperation, [d, ...stored], attributes),
      ...stored.map(() => undefined),
      ...(bias ? [sum(d, [...x.shape.keys()].slice(0, -1))] : []),
    ]
  },
  onnx: (emit, [x, ...stored], attributes, node) => [
    product(emit, { name: x, shape: node.inputs[0].shape }, stored, attributes, Number(node.inputs[1].shape[0])),
  ],
})

/** How many tensors store a matrix. */
const storedInputs = ({ format: { asymmetric, offsets } }: MatrixAttributes): number => (asymmetric || offsets ? 3 : 2)

const backOperation = defineOperation({
  name: 'quantizedLinearGradient',
  inputs: ['dy', 'packed', 'scales', 'zeroPointsOrOffsets?'],
  outputs: ['dx'],
  attributes: matrixAttributes,
  infer: ([dy], { width }) => [{ dtype: 'float32', shape: [...dy.shape.slice(0, -1), width] }],
  onnx: (emit, [dy, ...stored], attributes, node) => [
    emit.op('MatMul', [dy, floatMatrix(emit, stored, attributes, Number(node.inputs[1].shape[0]), dy)]),
  ],
})

/**
 * A stored matrix in float32, [out, width], made when `waitFor` is there: ONNX Runtime would make those of all layers at once
 * and keep them until they are used.
 */
function floatMatrix(
  emit: Emitter,
  [packed, scales, third]: readonly string[],
  { format: { bits, blockSize, asymmetric, offsets, activations }, width }: MatrixAttributes,
  out: number,
  waitFor: string,
): string {
  if (activations) {
    const later = emitAfter(emit, { name: scales, shape: [out] }, waitFor)
    return emit.op('DequantizeLinear', [packed, later], { axis: 0 })
  }
  const blocks = width / blockSize
  const later = emitAfter(emit, { name: scales, shape: [out, blocks] }, waitFor)
  const whole = [out, width]
  // Zero points of an odd number of blocks end in half a byte, row by row.
  const even = bits === 8 || blocks % 2 === 0 || !asymmetric
  const numbers = bits === 8 ? emit.view(packed, whole) : even ? emit.viewNibbles(packed, whole) : undefined
  const zeros = offsets
    ? undefined
    : !asymmetric
      ? middles(emit, [out, blocks], bits)
      : bits === 8
        ? emit.view(third, [out, blocks])
        : emit.viewNibbles(third, [out, blocks])
  if (numbers !== undefined && (offsets || zeros !== undefined)) {
    const values = emit.op('DequantizeLinear', zeros === undefined ? [numbers, later] : [numbers, later, zeros], {
      axis: 1,
      block_size: blockSize,
    })
    return offsets ? plusOffsets(emit, values, third, whole, blockSize) : values
  }
  const rows = emit.op('Range', [emit.int(0), emit.int(out), emit.int(1)])
  const inputs = [emit.view(packed, [out, (width * bits) / 8]), rows, later]
  const attributes = { gather_axis: 0, quantize_axis: 1, bits, block_size: blockSize }
  const values = emit.contrib('GatherBlockQuantized', inputs, attributes)
  if (offsets) return plusOffsets(emit, values, shiftedOffsets(emit, later, third, bits), whole, blockSize)
  if (!asymmetric) return values
  const below = emit.op('Sub', [emit.float(2 ** (bits - 1)), nibbles(emit, third, [out, blocks])])
  return plusOffsets(emit, values, emit.op('Mul', [below, later]), whole, blockSize)
}

/** The first `columns` numbers in each row of bytes [rows, bytes], two in a byte, as float32. */
function nibbles(emit: Emitter, bytes: string, [rows, columns]: readonly [number, number]): string {
  const byte = (value: number) => emit.constant({ dtype: 'uint8', shape: [], data: Uint8Array.of(value) })
  const pair = [
    emit.op('BitwiseAnd', [bytes, byte(15)]),
    emit.op('BitShift', [bytes, byte(4)], { direction: 'RIGHT' }),
  ].map((half) => emit.op('Unsqueeze', [half, emit.ints([-1])]))
  const all = emit.op('Reshape', [emit.op('Concat', pair, { axis: -1 }), emit.ints([rows, -1])])
  const wanted = emit.op('Slice', [all, emit.ints([0]), emit.ints([columns]), emit.ints([1])])
  return emit.op('Cast', [wanted], { to: ONNX_TYPE.float32 })
}

/** values [out, width] + an offset for each block [out, blocks]. */
function plusOffsets(
  emit: Emitter,
  values: string,
  offsets: string,
  [out, width]: number[],
  blockSize: number,
): string {
  const blocks = emit.op('Reshape', [values, emit.ints([out, width / blockSize, blockSize])])
  const sum = emit.op('Add', [blocks, emit.op('Unsqueeze', [offsets, emit.ints([-1])])])
  return emit.op('Reshape', [sum, emit.ints([out, width])])
}

/** The zero point of a symmetric format for each of its blocks, which DequantizeLinear wants to be told. */
const middles = (emit: Emitter, shape: readonly number[], bits: 4 | 8): string =>
  emit.once(`middles ${bits} [${shape}]`, () => {
    const blocks = shape.reduce((a, b) => a * b, 1)
    return bits === 8
      ? emit.constant({ dtype: 'uint8', shape, data: new Uint8Array(blocks).fill(128) })
      : emit.constant({ dtype: 'uint4', shape, data: new Uint8Array(Math.ceil(blocks / 2)).fill(0x88) })
  })

/** x W^T (+ bias) of a stored matrix of `out` rows. */
function product(
  emit: Emitter,
  { name: x, shape }: { name: string; shape: Shape },
  stored: readonly string[],
  attributes: MatrixAttributes,
  out: number,
): string {
  const { format, width } = attributes
  const { bits, blockSize, asymmetric, offsets, activations } = format
  const [packed, scales, ...rest] = stored
  if (attributes.exact) {
    const count = storedInputs(attributes)
    const matrix = floatMatrix(emit, stored.slice(0, count), attributes, out, x)
    const y = timesTransposed(emit, { name: x, shape }, matrix, out)
    return stored.length > count ? emit.op('Add', [y, stored[count]]) : y
  }
  if (activations) {
    const y = integerProduct(emit, { name: x, shape }, [packed, scales], out)
    return rest.length > 0 ? emit.op('Add', [y, rest[0]]) : y
  }
  const [third, bias] = asymmetric || offsets ? rest : ['', ...rest]
  const inputs = [x, packed, scales, asymmetric ? third : '', ...(bias === undefined ? [] : ['', bias])]
  // Level 4: the activations are rounded to 8 bits per block, and products are summed in integers. WebAssembly has no kernel for
  // that, and WebGPU's differ: there products are of float32 (level 1).
  const accuracy = emit.target === 'onnxruntime-node' ? 4 : 1
  const sizes = { K: width, N: out, bits, block_size: blockSize, accuracy_level: accuracy }
  const y = emit.contrib('MatMulNBits', inputs, sizes)
  if (!offsets) return y
  // q * scale + offset is (q - middle) * scale, as above, and a number for all of the block: it meets the sum of the inputs.
  // MatMulNBits takes zero points that are not whole too, but then makes the matrix float32 in each product.
  const blocks = width / blockSize
  const summed = emit.op('ReduceSum', [inBlocks(emit, x, shape.length, width, blockSize), emit.ints([-1])], {
    keepdims: 0,
  })
  // Chosen rows, [R, width], may be none: ReduceSum then leaves the shape as it is.
  const name = shape.length === 2 ? emit.op('Reshape', [summed, emit.ints([0, blocks])]) : summed
  const sums = { name, shape: [...shape.slice(0, -1), blocks] }
  return emit.op('Add', [y, timesTransposed(emit, sums, shiftedOffsets(emit, scales, third, bits), out)])
}

/** offsets + middle * scales: constants, which ONNX Runtime adds when it loads the model. */
const shiftedOffsets = (emit: Emitter, scales: string, offsets: string, bits: number): string =>
  emit.op('Add', [offsets, emit.op('Mul', [scales, emit.float(2 ** (bits - 1))])])

/** [..., width] -> [..., blocks, blockSize] */
const inBlocks = (emit: Emitter, x: string, rank: number, width: number, blockSize: number): string =>
  emit.op('Reshape', [x, emit.ints([...Array<number>(rank - 1).fill(0), width / blockSize, blockSize])])

/** `linear` where the weight is a quantised matrix; undefined where it is not. */
export function quantizedLinear(x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor | undefined {
  const stored = storage(weight)
  return stored && apply1(linearOperation, [x, ...stored.inputs, ...(bias ? [bias] : [])], stored.attributes)
}

const joinedOperation = defineOperation({
  name: 'joinedLinear',
  inputs: ['x', 'packed', 'scales', 'zeroPointsOrOffsets?'],
  outputs: ['y...'],
  attributes: matrixAttributes.extend({ sizes: z.array(count).readonly() }),
  infer: ([x], { sizes }) => sizes.map((size) => ({ dtype: 'float32', shape: [...x.shape.slice(0, -1), size] })),
  onnx(emit, [x, ...stored], { sizes, ...attributes }, node) {
    const out = sizes.reduce((a, b) => a + b, 0)
    const y = product(emit, { name: x, shape: node.inputs[0].shape }, stored, attributes, out)
    return emit.node('Split', [y, emit.ints(sizes)], { attributes: { axis: -1 }, outputs: sizes.length })
  },
})

/** Products of one input with quantised matrices of one format, without biases: nodes in groups of two or more. */
export function productsOfOneInput(nodes: readonly Node[]): Node[][] {
  const groups = new Map<Tensor, Node[]>()
  for (const node of nodes) {
    if (node.operation !== (linearOperation as unknown)) continue
    const [x, , , ...rest] = node.inputs
    const { format, exact } = node.attributes as MatrixAttributes
    if (exact) continue
    if (rest.length > (format.asymmetric || format.offsets ? 1 : 0)) continue
    groups.set(x, [...(groups.get(x) ?? []), node])
  }
  const formatOf = (node: Node) => JSON.stringify((node.attributes as MatrixAttributes).format)
  return [...groups.values()].filter(
    (group) => group.length > 1 && group.every((node) => formatOf(node) === formatOf(group[0])),
  )
}

/** The packed values and the format of the matrix of such a product. */
export const matrixOf = ({ inputs, attributes }: Node): { packed: Tensor } & MatrixAttributes => ({
  packed: inputs[1],
  ...(attributes as MatrixAttributes),
})

/** One product in place of a group of `productsOfOneInput`, with a quantised matrix that has the rows of all theirs. */
export function joinProducts(group: readonly Node[], matrix: Tensor): Node {
  const stored = storage(matrix)
  if (!stored) throw new Error('only quantised matrices are joined')
  return {
    operation: joinedOperation as Operation<never>,
    inputs: [group[0].inputs[0], ...stored.inputs],
    attributes: { ...stored.attributes, sizes: group.map((node) => Number(matrixOf(node).packed.shape[0])) },
    outputs: group.map((node) => node.outputs[0]),
    scope: group[0].scope,
  }
}

const gatherOperation = defineOperation({
  name: 'quantizedGatherRows',
  inputs: ['index', 'packed', 'scales', 'zeroPointsOrOffsets?'],
  outputs: ['rows'],
  attributes: matrixAttributes,
  infer([index], { width }, fail) {
    if (index.dtype !== 'int64') fail('the index must be int64')
    return [{ dtype: 'float32', shape: [...index.shape, width] }]
  },
  onnx(emit, [index, packed, scales, third], { format: { bits, blockSize, offsets, activations }, width }, node) {
    if (activations) return [integerRows(emit, index, [packed, scales])]
    // Not a Reshape: ONNX Runtime would keep its result as a matrix of its own.
    const rows = emit.view(packed, [Number(node.inputs[1].shape[0]), (width * bits) / 8])
    const inputs = third === undefined || offsets ? [rows, index, scales] : [rows, index, scales, third]
    const attributes = { gather_axis: 0, quantize_axis: 1, bits, block_size: blockSize }
    const values = emit.contrib('GatherBlockQuantized', inputs, attributes)
    if (!offsets) return [values]
    const rank = node.outputs[0].shape.length
    const added = emit.op('Gather', [shiftedOffsets(emit, scales, third, bits), index], { axis: 0 })
    const sum = emit.op('Add', [
      inBlocks(emit, values, rank, width, blockSize),
      emit.op('Unsqueeze', [added, emit.ints([-1])]),
    ])
    return [emit.op('Reshape', [sum, emit.ints([...Array<number>(rank - 1).fill(0), width])])]
  },
})

/** `gatherRows` of a quantised matrix; undefined where it is not one. */
export function quantizedGatherRows(matrix: Tensor, index: Tensor): Tensor | undefined {
  const stored = storage(matrix)
  return stored && apply1(gatherOperation, [index, ...stored.inputs], stored.attributes)
}

/** A matrix [out, width] as an operation on many of them has it among its inputs: as one tensor, or as a quantised one's few. */
export const storedMatrix = z.strictObject({
  /** How many inputs it is. */
  inputs: count,
  out: count,
  /** Of a quantised matrix. */
  quantized: matrixAttributes.optional(),
  /** Whether it is float16. Default false. */
  half: z.boolean().optional(),
})
export type StoredMatrix = z.infer<typeof storedMatrix>

/** The tensors that a matrix is made of, and how they are read. */
export function matrixStorage(matrix: Tensor): { tensors: readonly Tensor[]; matrix: StoredMatrix } {
  const stored = storage(matrix)
  const tensors = stored?.inputs ?? [matrix]
  const out = Number(matrix.shape[0])
  return {
    tensors,
    matrix: {
      inputs: tensors.length,
      out,
      ...(stored ? { quantized: stored.attributes } : {}),
      ...(matrix.dtype === 'float16' ? { half: true } : {}),
    },
  }
}

/** x W^T of a matrix whose tensors are called `stored`, for x [n, width]. */
export function emitLinear(emit: Emitter, x: string, stored: readonly string[], matrix: StoredMatrix): string {
  const rows = { name: x, shape: ['rows', 'width'] }
  if (matrix.quantized) return product(emit, rows, stored, matrix.quantized, matrix.out)
  if (matrix.half) return emitHalfLinear(emit, x, stored[0])
  return timesTransposed(emit, rows, stored[0], matrix.out)
}

/** A matrix whose tensors are called `stored`, [out, width] in float32, made when `waitFor` is there. */
export function emitFloatMatrix(
  emit: Emitter,
  stored: readonly string[],
  { quantized, half, out }: StoredMatrix,
  waitFor: string,
): string {
  if (half) throw new Error('matrices in float16 are not trained on')
  return quantized ? floatMatrix(emit, stored, quantized, out, waitFor) : stored[0]
}
