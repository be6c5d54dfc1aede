// Grouped-query attention with a structured mask, one node forward and one node backward.
//
// Every query attends to two key sets: the tile of its own copy that it stands in, and an optional context that all
// copies share. Causal, bidirectional and block-causal attention are one copy with one tile; block diffusion
// [x_t ... ; x_0] is K+1 copies, tiles of whole blocks, and the clean copy as the context: a clean query's own block
// plus the strictly earlier clean blocks is block-causal attention, a noised query's is the block-diffusion mask.
// Which keys are visible is said by additive biases (0 or -inf). Decoding against a KV cache is `cachedAttention`.
import * as z from 'zod'
import { count, index } from '../../attributes.ts'
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

const attentionAttributes = z.strictObject({
  ...headAttributes,
  /** Copies of each row: the input is [copies * rows, length, heads * D]. */
  copies: count,
  /** Queries per tile; the length, or a divisor of it. */
  tile: count,
  /** The copy whose keys are the context; absent without one. Its bias is the last input. */
  contextCopy: index.optional(),
  /** The tile bias is there, after q, k, v. */
  hasTileBias: z.boolean(),
})
type AttentionAttributes = z.infer<typeof attentionAttributes>

interface Layout {
  rows: number
  copies: number
  kvHeads: number
  share: number
  tiles: number
  tile: number
  headDim: number
  length: number
}

function layoutOf(inputs: readonly Tensor[], attributes: AttentionAttributes, fail: Fail): Layout {
  const [q, k, v] = inputs
  const { kvHeads, copies, tile } = attributes
  if (q.shape.length !== 3 || !sameShape(k.shape, v.shape)) fail('q, k, v must be [copies * rows, length, heads * D]')
  const { headDim, share } = sharedHeads(q, attributes, fail)
  if (lastDim(k) !== kvHeads * headDim) fail(`the keys must have a width of ${kvHeads * headDim}`)
  const [lead, length] = q.shape
  if (typeof lead !== 'number' || typeof length !== 'number') return fail('the batch and the length must be static')
  if (lead % copies !== 0) fail(`${copies} copies do not divide the batch of ${lead}`)
  if (length % tile !== 0) fail(`tiles of ${tile} do not divide the length ${length}`)
  const tiles = length / tile
  return { rows: lead / copies, copies, kvHeads, share, tiles, tile, headDim, length }
}

/** Emits the reshapes and transposes between [copies * rows, length, heads * D] and the layouts of the products. */
function arrange(emit: Emitter, layout: Layout) {
  const { rows, kvHeads, copies, tiles, share, tile, headDim, length } = layout
  const flatShape = (heads: number): Shape => [rows * copies, length, heads * headDim]
  // One copy in one tile needs fewer axes to be moved.
  const simple = copies === 1 && tiles === 1
  const { reshape, transpose } = moves(emit)
  return {
    /** -> [rows, kvHeads, copies, tiles, share, tile, D] */
    query(x: string): string {
      if (simple) {
        const split = emit.reshape(x, flatShape(kvHeads * share), [rows, length, kvHeads, share, headDim])
        const moved = transpose(split, [0, 2, 3, 1, 4])
        return emit.op('Unsqueeze', [moved, emit.ints([2, 3])])
      }
      const split = emit.reshape(x, flatShape(kvHeads * share), [copies, rows, tiles, tile, kvHeads, share, headDim])
      return transpose(split, [1, 4, 0, 2, 5, 3, 6])
    },
    /** -> [rows, kvHeads, copies, tiles, tile, D] */
    key(x: string): string {
      if (simple) {
        const split = emit.reshape(x, flatShape(kvHeads), [rows, length, kvHeads, headDim])
        return emit.op('Unsqueeze', [transpose(split, [0, 2, 1, 3]), emit.ints([2, 3])])
      }
      const split = emit.reshape(x, flatShape(kvHeads), [copies, rows, tiles, tile, kvHeads, headDim])
      return transpose(split, [1, 4, 0, 2, 3, 5])
    },
    /** [rows, kvHeads, copies, tiles, share, tile, D] -> [copies * rows, length, heads * D] */
    fromQuery(x: string): string {
      if (simple) {
        const squeezed = emit.op('Squeeze', [x, emit.ints([2, 3])])
        const moved = transpose(squeezed, [0, 3, 1, 2, 4])
        return emit.reshape(moved, [rows, length, kvHeads, share, headDim], flatShape(kvHeads * share))
      }
      const moved = transpose(x, [2, 0, 3, 5, 1, 4, 6])
      return emit.reshape(moved, [copies, rows, tiles, tile, kvHeads, share, headDim], flatShape(kvHeads * share))
    },
    /** [rows, kvHeads, copies, tiles, tile, D] -> [copies * rows, length, kvHeads * D] */
    fromKey(x: string): string {
      const moved = transpose(x, [2, 0, 3, 4, 1, 5])
      return emit.reshape(moved, [copies, rows, tiles, tile, kvHeads, headDim], flatShape(kvHeads))
    },
    /** Query layout as matrices against the tile's keys: [rows, kvHeads, copies, tiles, share * tile, D]. */
    perTile: (x: string, width: number) => reshape(x, [0, 0, 0, 0, share * tile, width]),
    /** Query layout as matrices against the context's keys: [rows, kvHeads, copies * tiles * share * tile, D]. */
    perContext: (x: string, width: number) => reshape(x, [0, 0, -1, width]),
    /** Back to [rows, kvHeads, copies, tiles, share, tile, width]. */
    unfold: (x: string, width: number) => reshape(x, [0, 0, copies, tiles, share, tile, width]),
  }
}

function checkBias(which: string, bias: Tensor, expected: Shape, fail: Fail): void {
  if (bias.shape.length !== expected.length || bias.shape.some((dim, i) => dim !== 1 && dim !== expected[i]))
    fail(`the ${which} bias must broadcast to ${shapeText(expected)}`)
}

const attentionOperation = defineOperation({
  name: 'attention',
  inputs: ['q', 'k', 'v', 'tileBias?', 'contextBias?'],
  outputs: ['y', 'tileProbabilities', 'contextProbabilities?'],
  attributes: attentionAttributes,
  infer(inputs, attributes, fail) {
    const layout = layoutOf(inputs, attributes, fail)
    const { rows, kvHeads, copies, tiles, share, tile, length } = layout
    let next = 3
    if (attributes.hasTileBias) checkBias('tile', inputs[next++], [rows, 1, 1, tiles, 1, tile, tile], fail)
    const types = [
      { dtype: 'float32' as const, shape: inputs[0].shape },
      { dtype: 'float32' as const, shape: [rows, kvHeads, copies, tiles, share, tile, tile] as Shape },
    ]
    if (attributes.contextCopy === undefined) return types
    if (attributes.contextCopy >= copies) fail(`there is no copy ${attributes.contextCopy}`)
    checkBias('context', inputs[next], [rows, 1, 1, tiles, 1, tile, length], fail)
    types.push({ dtype: 'float32', shape: [rows, kvHeads, copies, tiles, share, tile, length] })
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
    const scale = scaleOf(layout.headDim)
    const q = at.query(inputs[0])
    const k = at.key(inputs[1])
    const v = at.key(inputs[2])
    let next = 3
    const { tile, headDim, length } = layout
    let own = at.unfold(dots(emit, at.perTile(q, headDim), k, scale), tile)
    if (attributes.hasTileBias) own = emit.op('Add', [own, inputs[next++]])
    if (attributes.contextCopy === undefined) {
      const probabilities = emit.op('Softmax', [own], { axis: -1 })
      const mixed = emit.op('MatMul', [at.perTile(probabilities, tile), v])
      return [at.fromQuery(at.unfold(mixed, headDim)), probabilities]
    }
    const contextKey = cleanCopy(emit, layout, k, attributes.contextCopy)
    const contextValue = cleanCopy(emit, layout, v, attributes.contextCopy)
    const scores = at.unfold(dots(emit, at.perContext(q, headDim), contextKey, scale), length)
    const biased = emit.op('Add', [scores, inputs[next]])
    const [ownP, contextP] = softmaxOfBoth(emit, own, biased, [tile, length])
    const fromOwn = at.unfold(emit.op('MatMul', [at.perTile(ownP, tile), v]), headDim)
    const fromContext = at.unfold(emit.op('MatMul', [at.perContext(contextP, length), contextValue]), headDim)
    return [at.fromQuery(emit.op('Add', [fromOwn, fromContext])), ownP, contextP]
  },
})

/** Copy `index` of [rows, kvHeads, copies, tiles, tile, D] -> [rows, kvHeads, length, D]. */
function cleanCopy(
  emit: Emitter,
  { rows, kvHeads, length, headDim, copies }: Layout,
  x: string,
  index: number,
): string {
  const one = copies === 1 ? x : emit.op('Slice', [x, emit.ints([index]), emit.ints([index + 1]), emit.ints([2])])
  return emit.op('Reshape', [one, emit.ints([rows, kvHeads, length, headDim])])
}

/** Inputs q, k, v, the forward's outputs and dy; outputs dq, dk, dv. */
const attentionGradient = defineOperation({
  name: 'attentionGradient',
  inputs: ['q', 'k', 'v', 'y', 'tileProbabilities', 'contextProbabilities?', 'dy'],
  outputs: ['dq', 'dk', 'dv'],
  attributes: attentionAttributes,
  infer: ([q, k, v]) => likeInputs([q, k, v]),
  onnx(emit, inputs, attributes, node) {
    const layout = layoutOf(node.inputs, attributes, never)
    const at = arrange(emit, layout)
    const scale = scaleOf(layout.headDim)
    const { tile, headDim, rows, kvHeads, copies, tiles, length } = layout
    const [q, k, v] = [at.query(inputs[0]), at.key(inputs[1]), at.key(inputs[2])]
    const ownP = inputs[4]
    const contextP = attributes.contextCopy === undefined ? undefined : inputs[5]
    const dy = at.query(inputs[inputs.length - 1])
    const y = at.query(inputs[3])
    const sums = rowSums(emit, dy, y)

    const dyTile = at.perTile(dy, headDim)
    const ownPTile = at.perTile(ownP, tile)
    const dOwn = at.perTile(scoreGradient(emit, ownP, at.unfold(dots(emit, dyTile, v), tile), sums), tile)
    let dq = at.unfold(mix(emit, dOwn, k, scale), headDim)
    let dk = mixByColumns(emit, dOwn, at.perTile(q, headDim), scale)
    let dv = mixByColumns(emit, ownPTile, dyTile)
    if (contextP) {
      const index = attributes.contextCopy as number
      const contextKey = cleanCopy(emit, layout, k, index)
      const contextValue = cleanCopy(emit, layout, v, index)
      const dyAll = at.perContext(dy, headDim)
      const dPContext = at.unfold(dots(emit, dyAll, contextValue), length)
      const dContext = at.perContext(scoreGradient(emit, contextP, dPContext, sums), length)
      dq = emit.op('Add', [dq, at.unfold(mix(emit, dContext, contextKey, scale), headDim)])
      const dkContext = mixByColumns(emit, dContext, at.perContext(q, headDim), scale)
      const dvContext = mixByColumns(emit, at.perContext(contextP, length), dyAll)
      const join = (own: string, context: string): string => {
        const shaped = emit.op('Reshape', [context, emit.ints([rows, kvHeads, 1, tiles, tile, headDim])])
        if (copies === 1) return emit.op('Add', [own, shaped])
        const before = emit.ints([0, 0, index, 0, 0, 0, 0, 0, copies - 1 - index, 0, 0, 0])
        return emit.op('Add', [own, emit.op('Pad', [shaped, before])])
      }
      dk = join(dk, dkContext)
      dv = join(dv, dvContext)
    }
    return [at.fromQuery(dq), at.fromKey(dk), at.fromKey(dv)]
  },
})

/** Additive biases and key sets of an attention call; see the head of this file. */
export interface AttentionMask {
  copies: number
  tile: number
  /** Broadcasts to [rows, 1, 1, tiles, 1, tile, tile]; absent where all keys of the tile are visible. */
  tileBias?: Tensor
  /** The copy that all queries see too, and its bias: broadcasts to [rows, 1, 1, tiles, 1, tile, length]. */
  context?: { copy: number; bias: Tensor }
}

/** softmax(q k^T / sqrt(D) + bias) v: q [copies * rows, length, heads * D], k and v with `kvHeads`. */
export function attention(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, { heads, kvHeads }: Heads): Tensor {
  const inputs = [q, k, v]
  if (mask.tileBias) inputs.push(mask.tileBias)
  if (mask.context) inputs.push(mask.context.bias)
  return apply(attentionOperation, inputs, {
    heads,
    kvHeads,
    copies: mask.copies,
    tile: mask.tile,
    contextCopy: mask.context?.copy,
    hasTileBias: mask.tileBias !== undefined,
  })[0]
}
