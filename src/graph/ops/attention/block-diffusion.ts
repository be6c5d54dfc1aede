// Attention of block-diffusion training, `[x_t(1) ... x_t(K) ; x_0]` (LLaDA2.0, equation 3; design decision 4), without
// computing what the mask rules out. One node forward and one node backward.
//
// Every query, noised or clean, sees its own tile in its own copy and the earlier blocks of the clean copy. Rows are cut
// into tiles of whole blocks and the tiles into groups: a group's queries meet only the clean keys before the end of its
// last tile, so about half of the context is never computed. Inside a group, which keys a block sees is said by a few
// extra columns of the product q k^T: a one-hot of the query's block against 0 or -1e30 per key, so that no bias is ever
// added to the scores.
import * as z from 'zod'
import { count } from '../../attributes.ts'
import type { Emitter } from '../../onnx/emitter.ts'
import { defineOperation } from '../../registry.ts'
import { type Shape, sameShape, shapeText } from '../../shape.ts'
import { apply, lastDim, type Tensor } from '../../tensor.ts'
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

const blockDiffusionAttributes = z.strictObject({
  ...headAttributes,
  /** Copies of each row, the clean one last: the inputs are [copies * rows, length, heads * D]. */
  copies: count,
  /** Queries per tile, a divisor of the length. */
  tile: count,
  /** Tiles per group, a divisor of the number of tiles. */
  tilesPerGroup: count,
  blockSize: count,
  /** The tile bias is there (blocks smaller than a tile). */
  hasTileBias: z.boolean(),
})
export type BlockDiffusionAttributes = z.infer<typeof blockDiffusionAttributes>

/** Sizes of one call; `g` counts groups. */
interface Layout extends BlockDiffusionAttributes {
  rows: number
  length: number
  headDim: number
  /** Query heads per key head. */
  share: number
  groups: number
}

/** Clean keys that the queries of group g may see: those before the last block of its last tile. */
export const contextWidth = (
  g: number,
  { tile, tilesPerGroup, blockSize }: Pick<BlockDiffusionAttributes, 'tile' | 'tilesPerGroup' | 'blockSize'>,
): number => Math.max(0, (g + 1) * tilesPerGroup * tile - Math.min(blockSize, tile))

/** Blocks of a group: the extra columns of the product. */
export const blocksPerGroup = ({
  tile,
  tilesPerGroup,
  blockSize,
}: Pick<BlockDiffusionAttributes, 'tile' | 'tilesPerGroup' | 'blockSize'>) =>
  (tilesPerGroup * tile) / Math.min(blockSize, tile)

function layoutOf(inputs: readonly Tensor[], attributes: BlockDiffusionAttributes, fail: Fail): Layout {
  const [q, k, v] = inputs
  const { kvHeads, copies, tile, tilesPerGroup } = attributes
  const [lead, length] = q.shape
  if (q.shape.length !== 3 || typeof lead !== 'number' || typeof length !== 'number' || lead % copies !== 0)
    return fail('q must be [copies * rows, length, heads * D] with static sizes')
  if (!sameShape(k.shape, v.shape) || !sameShape(k.shape.slice(0, 2), [lead, length])) fail('k and v must match q')
  const { headDim, share } = sharedHeads(q, attributes, fail)
  if (lastDim(k) !== kvHeads * headDim) fail(`the keys must have a width of ${kvHeads * headDim}`)
  const groups = length / (tile * tilesPerGroup)
  if (!Number.isInteger(groups)) fail(`groups of ${tilesPerGroup} tiles of ${tile} do not divide the length ${length}`)
  return { ...attributes, rows: lead / copies, length, headDim, share, groups }
}

/** Layouts of the products. A query tensor is [groups, rows, kvHeads, copies, tilesPerGroup, share, tile, D]. */
function arrange(emit: Emitter, layout: Layout) {
  const { rows, length, headDim, share, groups, copies, kvHeads, tile, tilesPerGroup, heads } = layout
  const groupRows = copies * tilesPerGroup * share * tile
  const { reshape, transpose } = moves(emit)
  const widths = Array.from({ length: groups }, (_, g) => contextWidth(g, layout))
  return {
    widths,
    query: (x: string) =>
      transpose(
        reshape(x, [copies, rows, groups, tilesPerGroup, tile, kvHeads, share, headDim]),
        [2, 1, 5, 0, 3, 6, 4, 7],
      ),
    fromQuery: (x: string) =>
      reshape(
        transpose(
          reshape(x, [groups, rows, kvHeads, copies, tilesPerGroup, share, tile, headDim]),
          [3, 1, 0, 4, 6, 2, 5, 7],
        ),
        [copies * rows, length, heads * headDim],
      ),
    /** -> [groups, rows, kvHeads, copies, tilesPerGroup, tile, D] */
    key: (x: string) =>
      transpose(reshape(x, [copies, rows, groups, tilesPerGroup, tile, kvHeads, headDim]), [2, 1, 5, 0, 3, 4, 6]),
    /** The clean copy of k or v -> [rows, kvHeads, length, D] */
    clean(x: string): string {
      const last = emit.op('Slice', [x, emit.ints([(copies - 1) * rows]), emit.ints([copies * rows]), emit.ints([0])])
      return transpose(reshape(last, [rows, length, kvHeads, headDim]), [0, 2, 1, 3])
    },
    /** The keys that group g may see -> [rows, kvHeads, width, D] */
    prefix: (clean: string, g: number) =>
      widths[g] === length ? clean : emit.op('Slice', [clean, emit.ints([0]), emit.ints([widths[g]]), emit.ints([2])]),
    /** Gradients of the own tiles and of the clean keys, together -> [copies * rows, length, kvHeads * D] */
    fromKey(own: string, context: readonly string[]): string {
      const back = transpose(own, [3, 1, 0, 4, 5, 2, 6])
      const flat = reshape(back, [copies * rows, length, kvHeads * headDim])
      const padded = context.map((x, i) => {
        const missing = length - widths[groups - context.length + i]
        return missing === 0 ? x : emit.op('Pad', [x, emit.ints([0, 0, 0, 0, 0, 0, missing, 0])])
      })
      if (padded.length === 0) return flat
      const summed = padded.length === 1 ? padded[0] : emit.op('Sum', padded)
      const clean = reshape(transpose(summed, [0, 2, 1, 3]), [rows, length, kvHeads * headDim])
      const all = emit.op('Pad', [clean, emit.ints([(copies - 1) * rows, 0, 0, 0, 0, 0])])
      return emit.op('Add', [flat, all])
    },
    /** A query tensor cut into its groups. */
    perGroup: (x: string) =>
      groups === 1 ? [x] : emit.node('Split', [x], { attributes: { axis: 0, num_outputs: groups }, outputs: groups }),
    together: (parts: readonly string[]) => (parts.length === 1 ? parts[0] : emit.op('Concat', parts, { axis: 0 })),
    /** Against the tile's keys: [groups, rows, kvHeads, copies, tilesPerGroup, share * tile, width]. */
    perTile: (x: string, width: number) =>
      reshape(x, [groups, rows, kvHeads, copies, tilesPerGroup, share * tile, width]),
    /** Scores against the tile's keys, with the bias of the tiles [rows, 1, 1, tiles, 1, tile, tile]. */
    withTileBias(scores: string, bias: string): string {
      const split = reshape(scores, [groups, rows, kvHeads, copies, tilesPerGroup, share, tile, tile])
      const grouped = reshape(bias, [rows, 1, 1, groups, tilesPerGroup, 1, tile, tile])
      return emit.op('Add', [split, transpose(grouped, [3, 0, 1, 2, 4, 5, 6, 7])])
    },
    /** One group's queries against the context: [rows, kvHeads, copies * tilesPerGroup * share * tile, width]. */
    perContext: (x: string, width: number) => reshape(x, [rows, kvHeads, groupRows, width]),
    /** One group's part of a query tensor: [1, rows, kvHeads, ..., width]. */
    groupPart: (x: string, width: number) => reshape(x, [1, rows, kvHeads, groupRows, width]),
    /** A query tensor with the rows of a group as one axis: [groups, rows, kvHeads, copies * ... * tile, width]. */
    byGroup: (x: string, width: number) => reshape(x, [groups, rows, kvHeads, groupRows, width]),
  }
}

const attentionOperation = defineOperation({
  name: 'blockDiffusionAttention',
  inputs: ['q', 'k', 'v', 'tileBias?', 'blocks', 'keyColumns...'],
  outputs: ['y', 'tileProbabilities', 'contextProbabilities...'],
  attributes: blockDiffusionAttributes,
  // Inputs: q, k, v, the tile bias where there is one, the one-hot block columns, the key columns of each group with context.
  infer(inputs, attributes, fail) {
    const layout = layoutOf(inputs, attributes, fail)
    const { rows, length, groups, copies, kvHeads, share, tile, tilesPerGroup } = layout
    let next = 3
    if (attributes.hasTileBias) {
      const expected: Shape = [rows, 1, 1, length / tile, 1, tile, tile]
      if (!sameShape(inputs[next].shape, expected)) fail(`the tile bias must be ${shapeText(expected)}`)
      next++
    }
    const columns = blocksPerGroup(layout)
    const blocks = inputs[next++]
    const groupRows = copies * tilesPerGroup * share * tile
    if (!sameShape(blocks.shape, [rows, kvHeads, groupRows, columns]))
      fail(`the block columns must be [${[rows, kvHeads, groupRows, columns]}]`)
    const types = [
      { dtype: 'float32' as const, shape: inputs[0].shape },
      { dtype: 'float32' as const, shape: [groups, rows, kvHeads, groupRows, tile] as Shape },
    ]
    for (let g = 0; g < groups; g++) {
      const width = contextWidth(g, layout)
      if (width === 0) continue
      const expected: Shape = [rows, kvHeads, width, columns]
      if (!inputs[next] || !sameShape(inputs[next].shape, expected))
        fail(`the key columns must be ${shapeText(expected)}`)
      next++
      types.push({ dtype: 'float32', shape: [rows, kvHeads, groupRows, width] })
    }
    return types
  },
  gradient({ inputs, outputs, attributes, gradients: [dy] }) {
    const [q, k, v] = inputs
    const gradients = apply(attentionGradient, [q, k, v, ...outputs, dy as Tensor], attributes)
    return [...gradients, ...inputs.slice(3).map(() => undefined)]
  },
  onnx(emit, inputs, attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const at = arrange(emit, layout)
    const { tile, headDim, groups } = layout
    const scale = scaleOf(headDim)
    const q = at.query(inputs[0])
    const k = at.key(inputs[1])
    const v = at.key(inputs[2])
    const cleanKey = at.clean(inputs[1])
    const cleanValue = at.clean(inputs[2])
    let next = 3
    let own = dots(emit, at.perTile(q, headDim), k, scale)
    if (attributes.hasTileBias) own = at.withTileBias(own, inputs[next++])
    const blocks = inputs[next++]
    const ownParts = at.perGroup(at.byGroup(own, tile))
    const queries = at.perGroup(at.byGroup(q, headDim))
    const ownP: string[] = []
    const contextP: string[] = []
    const mixed: string[] = []
    for (let g = 0; g < groups; g++) {
      const width = at.widths[g]
      if (width === 0) {
        ownP.push(emit.op('Softmax', [ownParts[g]], { axis: -1 }))
        continue
      }
      const query = emit.op('Concat', [at.perContext(queries[g], headDim), blocks], { axis: -1 })
      const key = emit.op('Concat', [at.prefix(cleanKey, g), inputs[next++]], { axis: -1 })
      const scores = dots(emit, query, key, scale)
      const [a, b] = softmaxOfBoth(emit, at.perContext(ownParts[g], tile), scores, [tile, width])
      ownP.push(at.groupPart(a, tile))
      contextP.push(b)
      mixed.push(at.groupPart(emit.op('MatMul', [b, at.prefix(cleanValue, g)]), headDim))
    }
    const probabilities = at.together(ownP)
    const fromOwn = at.byGroup(emit.op('MatMul', [at.perTile(probabilities, tile), v]), headDim)
    return [at.fromQuery(addContext(emit, fromOwn, mixed, layout)), probabilities, ...contextP]
  },
})

/** Adds the groups' parts to [groups, ...]; the first group may have no context. */
function addContext(emit: Emitter, own: string, parts: readonly string[], { groups }: Layout): string {
  if (parts.length === 0) return own
  const joined = parts.length === 1 ? parts[0] : emit.op('Concat', parts, { axis: 0 })
  const all =
    parts.length === groups
      ? joined
      : emit.op('Pad', [joined, emit.ints([groups - parts.length, 0, 0, 0, 0, 0, 0, 0, 0, 0])])
  return emit.op('Add', [own, all])
}

/** Inputs q, k, v, the forward's outputs and dy; outputs dq, dk, dv. */
const attentionGradient = defineOperation({
  name: 'blockDiffusionAttentionGradient',
  inputs: ['q', 'k', 'v', 'y', 'tileProbabilities', 'contextProbabilities...', 'dy'],
  outputs: ['dq', 'dk', 'dv'],
  attributes: blockDiffusionAttributes,
  infer: ([q, k, v]) => likeInputs([q, k, v]),
  onnx(emit, inputs, attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const at = arrange(emit, layout)
    const { tile, headDim, groups } = layout
    const scale = scaleOf(headDim)
    const ownP = inputs[4]
    const contextP = inputs.slice(5, -1)
    const q = at.query(inputs[0])
    const k = at.key(inputs[1])
    const v = at.key(inputs[2])
    const cleanKey = at.clean(inputs[1])
    const cleanValue = at.clean(inputs[2])
    const dy = at.query(inputs[inputs.length - 1])
    const y = at.query(inputs[3])
    // Against the context the subtraction in the score's gradient is one more column of the product that gives dP:
    // [dy, sums] [v, -1]^T.
    const sums = rowSums(emit, dy, y)
    const dyTile = at.perTile(dy, headDim)
    const dOwn = scoreGradient(emit, at.perTile(ownP, tile), dots(emit, dyTile, v), at.perTile(sums, 1))
    const dqOwn = at.byGroup(mix(emit, dOwn, k, scale), headDim)
    const dkOwn = mixByColumns(emit, dOwn, at.perTile(q, headDim), scale)
    const dvOwn = mixByColumns(emit, at.perTile(ownP, tile), dyTile)

    const queries = at.perGroup(at.byGroup(q, headDim))
    const outputs = at.perGroup(at.byGroup(dy, headDim))
    const sumsByGroup = at.perGroup(at.byGroup(sums, 1))
    const dqParts: string[] = []
    const dkParts: string[] = []
    const dvParts: string[] = []
    for (let g = 0, next = 0; g < groups; g++) {
      const width = at.widths[g]
      if (width === 0) continue
      const p = contextP[next++]
      const output = at.perContext(outputs[g], headDim)
      const value = at.prefix(cleanValue, g)
      const { rows, kvHeads } = layout
      const minusOne = emit.op('Expand', [emit.float(-1), emit.ints([rows, kvHeads, width, 1])])
      const dP = dots(
        emit,
        emit.op('Concat', [output, at.perContext(sumsByGroup[g], 1)], { axis: -1 }),
        emit.op('Concat', [value, minusOne], { axis: -1 }),
      )
      const dScores = emit.op('Mul', [p, dP])
      dqParts.push(at.groupPart(mix(emit, dScores, at.prefix(cleanKey, g), scale), headDim))
      dkParts.push(mixByColumns(emit, dScores, at.perContext(queries[g], headDim), scale))
      dvParts.push(mixByColumns(emit, p, output))
    }
    return [
      at.fromQuery(addContext(emit, dqOwn, dqParts, layout)),
      at.fromKey(dkOwn, dkParts),
      at.fromKey(dvOwn, dvParts),
    ]
  },
})

export interface BlockDiffusionMask {
  copies: number
  tile: number
  tilesPerGroup: number
  blockSize: number
  /** Additive, [rows, 1, 1, tiles, 1, tile, tile]; absent where a tile is one block. */
  tileBias?: Tensor
  /** One-hot of the query's block within its group: [rows, kvHeads, copies * tilesPerGroup * share * tile, blocks]. */
  blocks: Tensor
  /** For each group with context: 0 or -1e30 per key and block of the group, [rows, kvHeads, width, blocks]. */
  keyColumns: readonly Tensor[]
}

/** Attention over `[x_t(1) ... x_t(K) ; x_0]`: q [copies * rows, length, heads * D], k and v with `kvHeads`. */
export function blockDiffusionAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { tileBias, blocks, keyColumns, ...mask }: BlockDiffusionMask,
  { heads, kvHeads }: Heads,
): Tensor {
  const inputs = [q, k, v, ...(tileBias ? [tileBias] : []), blocks, ...keyColumns]
  return apply(attentionOperation, inputs, { ...mask, heads, kvHeads, hasTileBias: tileBias !== undefined })[0]
}
