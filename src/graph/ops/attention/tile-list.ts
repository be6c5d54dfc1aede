// Attention over a list of tiles, each a block of a noised or of the clean copy of a row: a query sees its own tile, and one or
// several ranges of those that others see, its row's context. How many tiles there are is known when the program runs. One node
// forward and one node backward.
//
// For the products the tiles of a row are spread over the places of a few groups; a group meets only the tiles of the context
// that one of its queries sees. Which of them a query sees is said by a few extra columns of the product q k^T: a one-hot of the query's
// block against 0 or -1e30 per key, so that no bias is ever added to the scores.
import * as z from 'zod'
import { ONNX_TYPE } from '../../../core/element-types.ts'
import { count } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { defineOperation } from '../../registry.ts'
import { product, type Shape, sameShape, shapeText } from '../../shape.ts'
import { apply, lastDim, type OutputType, type Tensor } from '../../tensor.ts'
import {
  dots,
  type Fail,
  type Heads,
  headAttributes,
  likeInputs,
  mix,
  mixByColumns,
  moves,
  never,
  rowSums,
  scaleOf,
  scoreGradient,
  sharedHeads,
  softmaxOfBoth,
} from './parts.ts'

const tileAttributes = z.strictObject({
  ...headAttributes,
  /** Tiles whose own keys are multiplied together. */
  bundle: count,
})
type Attributes = z.infer<typeof tileAttributes>

interface Layout extends Attributes {
  tile: number
  rows: number
  groups: number
  headDim: number
  /** Query heads per key head. */
  share: number
}

/** Keys of the context that the queries of a group meet; known when the program runs. */
const widthName = (group: number) => `context${group}`

/** Inputs q, k, v [P, tile, heads * D], order [groups, rows, places], placeOf [P]. */
function layoutOf(inputs: readonly Tensor[], attributes: Attributes, fail: Fail): Layout {
  const [q, k, v, order, placeOf] = inputs
  const [tiles, tile] = q.shape
  if (q.shape.length !== 3 || typeof tile !== 'number') return fail('q must be [tiles, tile, heads * D]')
  if (!sameShape(k.shape, v.shape) || !sameShape(k.shape.slice(0, 2), [tiles, tile])) fail('k and v must match q')
  const { headDim, share } = sharedHeads(q, attributes, fail)
  if (lastDim(k) !== attributes.kvHeads * headDim) fail(`the keys must have a width of ${attributes.kvHeads * headDim}`)
  const [groups, rows] = order.shape
  if (order.shape.length !== 3 || typeof groups !== 'number' || typeof rows !== 'number')
    return fail('the order must be [groups, rows, places]')
  if (!sameShape(placeOf.shape, [tiles])) fail(`the places must be [${tiles}]`)
  return { ...attributes, tile, rows, groups, headDim, share }
}

/** A query tensor is [groups, rows, kvHeads, bundles, share, bundle * tile, D]. */
function arrange(
  emit: Emitter,
  { rows, groups, kvHeads, share, headDim, heads, tile, bundle }: Layout,
  [order, placeOf, context, contextOf, ranges]: readonly string[],
) {
  const { reshape, transpose } = moves(emit)
  const size = bundle * tile
  const gather = (x: string, index: string) => emit.op('Gather', [x, index], { axis: 0 })
  const limit = (group: number, side: number) =>
    emit.once(`${ranges}[${group}, ${side}]`, () => {
      const row = emit.op('Slice', [ranges, emit.ints([group, side]), emit.ints([group + 1, side + 1])])
      const tiles = emit.op('Reshape', [row, emit.ints([1])])
      return emit.op('Mul', [tiles, emit.ints([tile])])
    })
  const widthOf = (group: number) =>
    emit.once(`${ranges}[${group}]`, () => emit.op('Sub', [limit(group, 1), limit(group, 0)]))
  return {
    size,
    query: (x: string) =>
      transpose(reshape(gather(x, order), [groups, rows, -1, size, kvHeads, share, headDim]), [0, 1, 4, 2, 5, 3, 6]),
    fromQuery(x: string): string {
      const split = reshape(x, [groups, rows, kvHeads, -1, share, size, headDim])
      return gather(reshape(transpose(split, [0, 1, 3, 5, 2, 4, 6]), [-1, tile, heads * headDim]), placeOf)
    },
    /** -> [groups, rows, kvHeads, bundles, bundle * tile, D] */
    key: (x: string) =>
      transpose(reshape(gather(x, order), [groups, rows, -1, size, kvHeads, headDim]), [0, 1, 4, 2, 3, 5]),
    /** Keys or values of the context of each row -> [rows, kvHeads, C * tile, D] */
    clean: (x: string) => transpose(reshape(gather(x, context), [rows, -1, kvHeads, headDim]), [0, 2, 1, 3]),
    /** Those that a group meets. */
    part: (clean: string, group: number) => emit.op('Slice', [clean, limit(group, 0), limit(group, 1), emit.ints([2])]),
    /** Gradients of the own keys, and of the context of each group -> [P, tile, kvHeads * D] */
    fromKey(own: string, parts: readonly string[], clean: string): string {
      const width = kvHeads * headDim
      const ownRows = gather(reshape(transpose(own, [0, 1, 3, 4, 2, 5]), [-1, tile, width]), placeOf)
      // One tile of zeros behind the context of each row is what tiles get that no other sees.
      const end = emit.op('Add', [emit.op('Shape', [clean], { start: 2, end: 3 }), emit.ints([tile])])
      const padded = parts.map((part, group) => {
        const around = emit.op('Concat', [limit(group, 0), emit.op('Sub', [end, limit(group, 1)])], { axis: 0 })
        return emit.op('Pad', [part, around, '', emit.ints([2])])
      })
      const summed = padded.length === 1 ? padded[0] : emit.op('Sum', padded)
      const tiles = reshape(transpose(summed, [0, 2, 1, 3]), [-1, tile, width])
      return emit.op('Add', [ownRows, gather(tiles, contextOf)])
    },
    /** A query tensor cut into its groups, [rows, kvHeads, queries, width] each. */
    perGroup(x: string, width: number): string[] {
      const flat = reshape(x, [groups, rows, kvHeads, -1, width])
      const parts =
        groups === 1
          ? [flat]
          : emit.node('Split', [flat], { attributes: { axis: 0, num_outputs: groups }, outputs: groups })
      return parts.map((part) => reshape(part, [rows, kvHeads, -1, width]))
    },
    together(parts: readonly string[], width: number): string {
      const lifted = parts.map((part) => reshape(part, [1, rows, kvHeads, -1, width]))
      return lifted.length === 1 ? lifted[0] : emit.op('Concat', lifted, { axis: 0 })
    },
    /** Against the own keys: [groups, rows, kvHeads, bundles, share * bundle * tile, width]. */
    perBundle: (x: string, width: number) => reshape(x, [groups, rows, kvHeads, -1, share * size, width]),
    byGroup: (x: string, width: number) => reshape(x, [groups, rows, kvHeads, -1, width]),
    widths: (group: number) =>
      emit.once(`${ranges}[${group}] ${size}`, () =>
        emit.op('Concat', [emit.ints([size]), widthOf(group)], { axis: 0 }),
      ),
    minusOne: (group: number) =>
      emit.once(`${ranges}[${group}] -1 ${rows} ${kvHeads}`, () =>
        emit.op('Expand', [
          emit.float(-1),
          emit.op('Concat', [emit.ints([rows, kvHeads]), widthOf(group), emit.ints([1])], { axis: 0 }),
        ]),
      ),
  }
}

/** -inf between the tiles of a bundle: [share * size, size]. */
function bundleBias(emit: Emitter, { share, bundle, tile }: Layout): string {
  const size = bundle * tile
  const data = new Float32Array(share * size * size)
  for (let query = 0; query < share * size; query++)
    for (let key = 0; key < size; key++)
      if (Math.floor((query % size) / tile) !== Math.floor(key / tile))
        data[query * size + key] = Number.NEGATIVE_INFINITY
  return emit.once(`bundles of ${bundle} tiles of ${tile}, ${share}`, () =>
    emit.constant({ dtype: 'float32', shape: [share * size, size], data }),
  )
}

const INDICES = ['order', 'placeOf', 'context', 'contextOf', 'ranges']

const attentionOperation = defineOperation({
  name: 'tileAttention',
  inputs: ['q', 'k', 'v', ...INDICES, 'blocks', 'keyColumns...'],
  outputs: ['y', 'tileProbabilities', 'contextProbabilities...'],
  attributes: tileAttributes,
  infer(inputs, attributes, fail) {
    const { rows, groups, kvHeads, share, tile, bundle } = layoutOf(inputs, attributes, fail)
    const queries = product([inputs[3].shape[2], share * tile])
    const blocks = inputs[8]
    if (!sameShape(blocks.shape.slice(0, 4), [groups, rows, kvHeads, queries]))
      fail(`the block columns must be ${shapeText([groups, rows, kvHeads, queries, 'X'])}`)
    const types: OutputType[] = [
      { dtype: 'float32', shape: inputs[0].shape },
      { dtype: 'float32', shape: [groups, rows, kvHeads, queries, bundle * tile] },
    ]
    for (let group = 0; group < groups; group++) {
      const expected: Shape = [rows, kvHeads, widthName(group), lastDimOf(blocks)]
      if (!inputs[9 + group] || !sameShape(inputs[9 + group].shape, expected))
        fail(`the key columns of group ${group} must be ${shapeText(expected)}`)
      types.push({ dtype: 'float32', shape: [rows, kvHeads, queries, widthName(group)] })
    }
    return types
  },
  gradient({ inputs, outputs, attributes, gradients: [dy] }) {
    const gradients = apply(gradientOperation, [...inputs.slice(0, 8), ...outputs, dy as Tensor], attributes)
    return [...gradients, ...inputs.slice(3).map(() => undefined)]
  },
  onnx(emit, inputs, attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const at = arrange(emit, layout, inputs.slice(3, 8))
    const { headDim, bundle, groups } = layout
    const scale = scaleOf(headDim)
    const q = at.query(inputs[0])
    let own = dots(emit, at.perBundle(q, headDim), at.key(inputs[1]), scale)
    if (bundle > 1) own = emit.op('Add', [own, bundleBias(emit, layout)])
    const cleanKey = at.clean(inputs[1])
    const cleanValue = at.clean(inputs[2])
    const ownParts = at.perGroup(own, at.size)
    const queries = at.perGroup(q, headDim)
    const blocks = blocksOf(emit, inputs[8], groups)
    const ownP: string[] = []
    const contextP: string[] = []
    const mixed: string[] = []
    for (let group = 0; group < groups; group++) {
      const query = emit.op('Concat', [queries[group], blocks[group]], { axis: -1 })
      const key = emit.op('Concat', [at.part(cleanKey, group), inputs[9 + group]], { axis: -1 })
      const [a, b] = softmaxOfBoth(emit, ownParts[group], dots(emit, query, key, scale), at.widths(group))
      ownP.push(a)
      contextP.push(b)
      mixed.push(emit.op('MatMul', [b, at.part(cleanValue, group)]))
    }
    const probabilities = at.together(ownP, at.size)
    const fromOwn = emit.op('MatMul', [at.perBundle(probabilities, at.size), at.key(inputs[2])])
    const y = emit.op('Add', [at.byGroup(fromOwn, headDim), at.together(mixed, headDim)])
    return [at.fromQuery(y), probabilities, ...contextP]
  },
})

const lastDimOf = (x: Tensor) => x.shape[x.shape.length - 1]

/** The columns of each group, [rows, kvHeads, queries, X]: the same for all layers. */
const blocksOf = (emit: Emitter, blocks: string, groups: number): string[] =>
  Array.from({ length: groups }, (_, group) =>
    emit.once(`${blocks}[${group}]`, () => emit.op('Gather', [blocks, emit.int(group)], { axis: 0 })),
  )

/** Inputs q, k, v, the indices, the forward's outputs and dy; outputs dq, dk, dv. */
const gradientOperation = defineOperation({
  name: 'tileAttentionGradient',
  inputs: ['q', 'k', 'v', ...INDICES, 'y', 'tileProbabilities', 'contextProbabilities...', 'dy'],
  outputs: ['dq', 'dk', 'dv'],
  attributes: tileAttributes,
  infer: ([q, k, v]) => likeInputs([q, k, v]),
  onnx(emit, inputs, attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const at = arrange(emit, layout, inputs.slice(3, 8))
    const { headDim, groups } = layout
    const scale = scaleOf(headDim)
    const ownP = inputs[9]
    const contextP = inputs.slice(10, -1)
    const q = at.query(inputs[0])
    const k = at.key(inputs[1])
    const v = at.key(inputs[2])
    const cleanKey = at.clean(inputs[1])
    const cleanValue = at.clean(inputs[2])
    const dy = at.query(inputs[inputs.length - 1])
    // Against the context the subtraction in the score's gradient is one more column of the product that gives dP:
    // [dy, sums] [v, -1]^T.
    const sums = rowSums(emit, dy, at.query(inputs[8]))
    const dyOwn = at.perBundle(dy, headDim)
    const ownPByBundle = at.perBundle(ownP, at.size)
    const dOwn = scoreGradient(emit, ownPByBundle, dots(emit, dyOwn, v), at.perBundle(sums, 1))
    const dqOwn = at.byGroup(mix(emit, dOwn, k, scale), headDim)
    const dkOwn = mixByColumns(emit, dOwn, at.perBundle(q, headDim), scale)
    const dvOwn = mixByColumns(emit, ownPByBundle, dyOwn)

    const queries = at.perGroup(q, headDim)
    const outputs = at.perGroup(dy, headDim)
    const sumsByGroup = at.perGroup(sums, 1)
    const dq: string[] = []
    const dk: string[] = []
    const dv: string[] = []
    for (let group = 0; group < groups; group++) {
      const dP = dots(
        emit,
        emit.op('Concat', [outputs[group], sumsByGroup[group]], { axis: -1 }),
        emit.op('Concat', [at.part(cleanValue, group), at.minusOne(group)], { axis: -1 }),
      )
      const dScores = emit.op('Mul', [contextP[group], dP])
      dq.push(mix(emit, dScores, at.part(cleanKey, group), scale))
      dk.push(mixByColumns(emit, dScores, queries[group], scale))
      dv.push(mixByColumns(emit, contextP[group], outputs[group]))
    }
    return [
      at.fromQuery(emit.op('Add', [dqOwn, at.together(dq, headDim)])),
      at.fromKey(dkOwn, dk, cleanKey),
      at.fromKey(dvOwn, dv, cleanValue),
    ]
  },
})

const columnsOperation = defineOperation({
  name: 'tileColumns',
  inputs: ['columnOf', 'before', 'ranges'],
  outputs: ['blocks', 'keyColumns...'],
  attributes: z.strictObject({ ...headAttributes, bundle: count, tile: count }),
  infer([columnOf, before], { heads, kvHeads, tile }, fail) {
    const [groups, rows, places] = columnOf.shape
    const columns = before.shape[2]
    if (
      typeof groups !== 'number' ||
      columnOf.shape.length !== 3 ||
      before.shape.length !== 5 ||
      !sameShape(before.shape, [groups, rows, columns, before.shape[3], 2])
    )
      return fail('the columns must be [groups, rows, places], what is before them [groups, rows, X, ranges, 2]')
    if (typeof before.shape[3] !== 'number') fail('the number of ranges must be known')
    const queries = product([places, (heads / kvHeads) * tile])
    return [
      { dtype: 'float32', shape: [groups, rows, kvHeads, queries, columns] },
      ...Array.from({ length: groups }, (_, group) => ({
        dtype: 'float32' as const,
        shape: [rows, kvHeads, widthName(group), columns],
      })),
    ]
  },
  onnx(emit, [columnOf, before, ranges], { heads, kvHeads, bundle, tile }, node) {
    const [groups, rows] = node.inputs[0].shape.map(Number)
    const spans = Number(node.inputs[1].shape[3])
    const columns = emit.op('Shape', [before], { start: 2, end: 3 })
    const range = (start: string, end: string) => emit.op('Range', [start, end, emit.int(1)])
    const gather = (x: string, index: number, axis: number) => emit.op('Gather', [x, emit.int(index)], { axis })
    const spread = (x: string, sizes: readonly number[], to: readonly number[]) =>
      emit.op('Reshape', [
        emit.op('Expand', [x, emit.ints(sizes)]),
        emit.op('Concat', [emit.ints(to), columns], { axis: 0 }),
      ])
    const column = emit.op('Reshape', [columnOf, emit.ints([groups, rows, 1, -1, 1, bundle, 1, 1])])
    const own = emit.op('Equal', [column, range(emit.int(0), emit.op('Squeeze', [columns]))])
    const blocks = spread(
      emit.op('Cast', [own], { to: ONNX_TYPE.float32 }),
      [1, 1, kvHeads, 1, heads / kvHeads, 1, tile, 1],
      [groups, rows, kvHeads, -1],
    )
    const keys = Array.from({ length: groups }, (_, group) => {
      const limits = gather(ranges, group, 0)
      const key = emit.op('Reshape', [range(gather(limits, 0, 0), gather(limits, 1, 0)), emit.ints([1, 1, -1, 1, 1])])
      const spansOf = gather(before, group, 0)
      const inside = (span: number) => {
        const limit = (side: number) =>
          emit.op('Unsqueeze', [gather(gather(spansOf, span, 2), side, 2), emit.ints([1, 2, 3])])
        return emit.op('And', [emit.op('GreaterOrEqual', [key, limit(0)]), emit.op('Less', [key, limit(1)])])
      }
      const visible = Array.from({ length: spans }, (_, span) => inside(span)).reduce((a, b) => emit.op('Or', [a, b]))
      // Finite, since it is multiplied by the 0 of the other blocks.
      const bias = emit.op('Where', [visible, emit.float(0), emit.float(-1e30)])
      return spread(bias, [1, kvHeads, 1, tile, 1], [rows, kvHeads, -1])
    })
    return [blocks, ...keys]
  },
})

/** Where tiles stand and what they see, all int64. */
export interface TileListMask {
  /** Tile at each place [groups, rows, places], and place of each tile [P]. */
  order: Tensor
  placeOf: Tensor
  /** Context of each row: tiles that others see [rows, C], and place of each tile in [rows, C + 1]. */
  context: Tensor
  contextOf: Tensor
  /** The part of the context that a group meets, [groups, 2]: the first tile, and the one behind the last. */
  ranges: Tensor
  /** Which of the group's sets the tile at each place sees, [groups, rows, places]. */
  columnOf: Tensor
  /** The ranges of the context that make up a set, [groups, rows, X, ranges, 2]: the first tile, and the one behind the last. */
  before: Tensor
}

/** Attention over tiles of `tile` positions: q [P, tile, heads * D], k and v with `kvHeads`. */
export function tileListAttention(
  { order, placeOf, context, contextOf, ranges, columnOf, before }: TileListMask,
  { heads, kvHeads, bundle, tile }: Heads & { bundle: number; tile: number },
): (q: Tensor, k: Tensor, v: Tensor) => Tensor {
  const attributes = { heads, kvHeads, bundle }
  const columns = apply(columnsOperation, [columnOf, before, ranges], { ...attributes, tile })
  return (q, k, v) =>
    apply(attentionOperation, [q, k, v, order, placeOf, context, contextOf, ranges, ...columns], attributes)[0]
}
