// Every differentiable operation against finite differences, on random small shapes.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import {
  checkGradients,
  type Expression,
  evaluate,
  indices,
  int64,
  normal,
  positive,
} from '../../test/graph/gradient-check.ts'
import type { TensorData } from '../core/types.ts'
import { type Attend, blockCausal, blockDiffusion, fullAttention, type Heads } from '../diffusion/attention.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { gradients } from './gradient.ts'
import { cachedAttention } from './ops/attention/cached.ts'
import { attention } from './ops/attention/tiled.ts'
import { crossEntropy } from './ops/cross-entropy.ts'
import { add, div, exp, mul, neg, sigmoid, softplus, sqrt, sub } from './ops/elementwise.ts'
import { entropyOfRight } from './ops/entropy.ts'
import { constant, input } from './ops/input.ts'
import { cast, concat, expand, gatherRows, reshape, scatterAddRows, slice } from './ops/layout.ts'
import { linear, matmul } from './ops/linear.ts'
import { predict } from './ops/predict.ts'
import { sum } from './ops/reduce.ts'
import { rmsNorm } from './ops/rms-norm.ts'
import { rope } from './ops/rope.ts'
import { swiglu } from './ops/swiglu.ts'
import { scope, type Tensor } from './tensor.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

/** Checks the expressions that `make` builds from random sizes. The seed is fixed: tolerances are numerical. */
const property = <T>(sizes: fc.Arbitrary<T>, make: (sizes: T, seed: number) => Expression, numRuns = 6) =>
  fc.assert(
    fc.asyncProperty(sizes, fc.nat(10_000), (size, seed) => checkGradients(executor, make(size, seed), seed)),
    { numRuns, seed: 20 },
  )

/** cos and sin [positions, half] of angles that differ from one another. */
function rotations(positions: number, half: number): { cos: TensorData; sin: TensorData } {
  const angles = Float32Array.from({ length: positions * half }, (_, i) => 0.37 * (i + 1))
  const table = (data: Float32Array): TensorData => ({ dtype: 'float32', shape: [positions, half], data })
  return { cos: table(angles.map(Math.cos)), sin: table(angles.map(Math.sin)) }
}

const dim = fc.integer({ min: 1, max: 4 })
const shape = (minLength: number, maxLength = 3) => fc.array(dim, { minLength, maxLength })

/** Two shapes that broadcast: each axis may be 1 or missing on either side. */
const broadcasting = fc
  .array(fc.tuple(dim, fc.constantFrom('both', 'left', 'right')), { minLength: 1, maxLength: 3 })
  .chain((axes) =>
    fc.record({
      a: fc.constant(axes.map(([size, side]) => (side === 'right' ? 1 : size))),
      b: fc.constant(axes.map(([size, side]) => (side === 'left' ? 1 : size))),
      dropA: fc.boolean(),
    }),
  )
  .map(({ a, b, dropA }) => {
    const trim = (shape: number[]) => {
      const lead = shape.findIndex((size) => size !== 1)
      return lead < 0 ? [] : shape.slice(lead)
    }
    return dropA ? { a: trim(a), b } : { a, b: trim(b) }
  })

describe('elementwise', () => {
  for (const [name, operation] of Object.entries({ add, sub, mul, div }))
    it(`${name}, broadcasting either side`, () =>
      property(broadcasting, ({ a, b }, seed) => ({
        values: { a: normal(seed, a), b: positive(seed + 1, b) },
        build: (x) => operation(x.a, x.b),
      })))

  it('a number on either side', () =>
    property(shape(0), (dims, seed) => ({
      values: { x: positive(seed, dims) },
      build: ({ x }) => sub(div(3, x), mul(x, 0.5)),
    })))

  it('a tensor used twice', () =>
    property(shape(1), (dims, seed) => ({ values: { x: normal(seed, dims) }, build: ({ x }) => add(mul(x, x), x) })))

  for (const [name, operation] of Object.entries({ neg, exp, sigmoid, softplus }))
    it(name, () =>
      property(shape(0), (dims, seed) => ({ values: { x: normal(seed, dims) }, build: ({ x }) => operation(x) })),
    )

  it('sqrt', () =>
    property(shape(0), (dims, seed) => ({ values: { x: normal(seed, dims) }, build: ({ x }) => sqrt(exp(x)) })))

  it('symbolic sizes', () =>
    checkGradients(executor, {
      values: { a: normal(1, [3, 4]), b: normal(2, [3, 4]), c: normal(3, [4]) },
      shapes: { a: ['N', 4], b: ['N', 4] },
      build: ({ a, b, c }) => mul(add(a, c), sub(b, a)),
    }))
})

describe('layout', () => {
  it('reshape', () =>
    property(fc.tuple(dim, dim, dim), ([a, b, c], seed) => ({
      values: { x: normal(seed, [a, b, c]) },
      build: ({ x }) => reshape(x, [b, c * a]),
    })))

  it('expand, with a new leading axis too', () =>
    property(fc.tuple(dim, dim, dim, fc.boolean()), ([a, b, c, lead], seed) => ({
      values: { x: normal(seed, [a, 1, c]) },
      build: ({ x }) => expand(x, lead ? [2, a, b, c] : [a, b, c]),
    })))

  it('slice', () =>
    property(
      fc.record({ dims: shape(2), axis: fc.constantFrom(0, 1), from: fc.nat(5), to: fc.nat(5) }),
      ({ dims, axis, from, to }, seed) => {
        const [start, end] = from < to ? [from, to] : [to, from + 1]
        const grown = dims.with(axis, end + 2)
        return { values: { x: normal(seed, grown) }, build: ({ x }) => slice(x, axis, start, end) }
      },
    ))

  it('overlapping slices of one tensor', () =>
    checkGradients(executor, {
      values: { x: normal(1, [2, 6]) },
      build: ({ x }) => mul(slice(x, 1, 0, 4), slice(x, 1, 2, 6)),
    }))

  it('concat, of the same tensor too', () =>
    property(
      fc.record({ dims: shape(2), axis: fc.constantFrom(0, 1), more: fc.array(dim, { minLength: 1, maxLength: 2 }) }),
      ({ dims, axis, more }, seed) => {
        const values = Object.fromEntries(
          [dims, ...more.map((size) => dims.with(axis, size))].map((s, i) => [`x${i}`, normal(seed + i, s)]),
        )
        return { values, build: (x) => concat([...Object.values(x), x.x0], axis) }
      },
    ))

  it('gatherRows with duplicates, from a vector and from a matrix of rows', () =>
    property(fc.tuple(shape(1), shape(1, 2)), ([dims, index], seed) => ({
      values: { x: normal(seed, dims), index: indices(seed, index, dims[0]) },
      build: ({ x, index }) => gatherRows(x, index),
    })))

  it('scatterAddRows with duplicates, into zeros and into a base', () =>
    property(fc.record({ dims: shape(1), rows: dim, base: fc.boolean() }), ({ dims, rows, base }, seed) => ({
      values: {
        index: indices(seed, [rows], dims[0]),
        updates: normal(seed, [rows, ...dims.slice(1)]),
        ...(base ? { into: normal(seed + 1, dims) } : {}),
      },
      build: ({ index, updates, into }) => scatterAddRows(dims, index, updates, into),
    })))

  it('rows gathered twice and used elsewhere: a gradient scattered into another', () =>
    checkGradients(executor, {
      values: { x: normal(1, [5, 3]), i: indices(2, [4], 5), j: indices(3, [6], 5), w: normal(4, [2, 3]) },
      build: ({ x, i, j, w }) =>
        add(add(sum(gatherRows(x, i)), sum(mul(gatherRows(x, j), gatherRows(x, j)))), sum(linear(w, x))),
    }))

  it('sum over symbolic sizes', () =>
    checkGradients(executor, {
      values: { x: normal(1, [3, 2]), y: normal(2, [2]) },
      shapes: { x: ['N', 2] },
      build: ({ x, y }) => mul(sum(mul(x, x), [0]), y),
    }))

  it('sum', () =>
    property(
      shape(1, 3).chain((dims) =>
        fc.record({ dims: fc.constant(dims), axes: fc.subarray([...dims.keys()]), keep: fc.boolean() }),
      ),
      ({ dims, axes, keep }, seed) => ({
        values: { x: normal(seed, dims) },
        build: ({ x }) => sum(mul(x, x), axes, keep),
      }),
    ))
})

describe('products', () => {
  for (const transposeA of [false, true])
    for (const transposeB of [false, true])
      it(`matmul${transposeA ? ', a transposed' : ''}${transposeB ? ', b transposed' : ''}`, () =>
        property(
          fc.record({ batch: shape(0, 2), m: dim, k: dim, n: dim, alpha: fc.constantFrom(1, 0.5) }),
          ({ batch, m, k, n, alpha }, seed) => ({
            values: {
              a: normal(seed, [...batch, ...(transposeA ? [k, m] : [m, k])]),
              b: normal(seed + 1, [...batch, ...(transposeB ? [n, k] : [k, n])]),
            },
            build: ({ a, b }) => matmul(a, b, { transposeA, transposeB, alpha }),
          }),
        ))

  it('linear with and without a bias', () =>
    property(
      fc.record({ lead: shape(1, 3), inner: dim, out: dim, bias: fc.boolean() }),
      ({ lead, inner, out, bias }, seed) => ({
        values: {
          x: normal(seed, [...lead, inner]),
          w: normal(seed + 1, [out, inner]),
          ...(bias ? { b: normal(seed + 2, [out]) } : {}),
        },
        build: ({ x, w, b }) => linear(x, w, b),
      }),
    ))

  it('linear over a symbolic number of rows', () =>
    checkGradients(executor, {
      values: { x: normal(1, [5, 3]), w: normal(2, [4, 3]), b: normal(3, [4]) },
      shapes: { x: ['N', 3] },
      build: ({ x, w, b }) => linear(x, w, b),
    }))
})

describe('layers', () => {
  it('rmsNorm', () =>
    property(fc.tuple(shape(1, 2), fc.integer({ min: 2, max: 6 })), ([lead, width], seed) => ({
      values: { x: normal(seed, [...lead, width]), w: normal(seed + 1, [width]) },
      build: ({ x, w }) => rmsNorm(x, w, 0.1),
    })))

  it('swiglu', () =>
    property(shape(1), (dims, seed) => ({
      values: { gate: normal(seed, dims), up: normal(seed + 1, dims) },
      build: ({ gate, up }) => swiglu(gate, up),
    })))

  it('rope, of whole heads and of their first dimensions', () =>
    property(
      fc.tuple(dim, dim, dim, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 2 })),
      ([rows, length, heads, half, rest], seed) => ({
        values: {
          x: normal(seed, [rows, length, heads * (half * 2 + rest)]),
          positions: indices(seed, [rows, length], 7),
          ...rotations(7, half),
        },
        wanted: ['x'],
        build: ({ x, positions, cos, sin }) => rope(x, positions, cos, sin, heads),
      }),
      12,
    ))

  it('crossEntropy, with repeated labels, the hidden states and the head being one tensor too', () =>
    property(
      fc.record({ positions: dim, width: dim, vocabulary: fc.integer({ min: 2, max: 6 }), symbolic: fc.boolean() }),
      ({ positions, width, vocabulary, symbolic }, seed) => ({
        values: {
          hidden: normal(seed, [positions, width]),
          head: normal(seed + 1, [vocabulary, width]),
          labels: indices(seed, [positions], vocabulary),
          weights: positive(seed, [positions]),
        },
        ...(symbolic && { shapes: { hidden: ['M', width], labels: ['M'], weights: ['M'] } }),
        wanted: ['hidden', 'head'],
        build: ({ hidden, head, labels, weights }) => crossEntropy(hidden, head, labels, weights).loss,
      }),
    ))

  it.each([1, 0.5, 2])('entropyOfRight behind crossEntropy, at temperature %s', (temperature) => {
    const [hidden, head] = [normal(1, [6, 4]), normal(2, [7, 4])]
    // Every other position is predicted right.
    const best = Array.from({ length: 6 }, (_, i) => {
      const logits = Array.from({ length: 7 }, (_, v) =>
        [0, 1, 2, 3].reduce((sum, d) => sum + Number(hidden.data[i * 4 + d]) * Number(head.data[v * 4 + d]), 0),
      )
      return logits.indexOf(Math.max(...logits))
    })
    return checkGradients(executor, {
      values: {
        ...{ hidden, head, w: positive(4, [6]), weights: positive(5, [6]) },
        labels: int64(
          [6],
          best.map((token, i) => (token + (i % 2)) % 7),
        ),
      },
      wanted: ['hidden', 'head'],
      build(t) {
        const { loss, logProbabilities } = crossEntropy(t.hidden!, t.head!, t.labels!, t.w!)
        return add(loss, mul(entropyOfRight(logProbabilities!, t.labels!, t.weights!, temperature).entropy, 3))
      },
    })
  })

  it.each(['alone', 'beside the loss'])('the nll of crossEntropy, %s', (how) =>
    checkGradients(executor, {
      values: {
        ...{ hidden: normal(1, [5, 4]), head: normal(2, [6, 4]), labels: indices(3, [5], 6) },
        ...{ weights: positive(4, [5]), w: normal(5, [5]) },
      },
      wanted: ['hidden', 'head'],
      build({ hidden, head, labels, weights, w }) {
        const { loss, nll } = crossEntropy(hidden, head, labels, weights)
        const ofNll = sum(mul(mul(nll, nll), w))
        return how === 'alone' ? ofNll : add(loss, ofNll)
      },
    }),
  )

  it('crossEntropy of a tied head', () =>
    checkGradients(executor, {
      values: { head: normal(1, [6, 4]), ids: indices(2, [5], 6), labels: indices(3, [5], 6), w: positive(4, [5]) },
      wanted: ['head'],
      build: ({ head, ids, labels, w }) => crossEntropy(gatherRows(head, ids), head, labels, w).loss,
    }))
})

describe('attention', () => {
  const sizes = fc.record({
    rows: fc.integer({ min: 1, max: 2 }),
    tiles: fc.integer({ min: 1, max: 3 }),
    tile: fc.integer({ min: 1, max: 3 }),
    copies: fc.integer({ min: 1, max: 3 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 2 }),
    headDim: fc.constantFrom(2, 4),
  })
  type Sizes = typeof sizes extends fc.Arbitrary<infer T> ? T : never
  type Layout = { documents: Tensor; positions: Tensor }

  const expression = (
    { rows, tiles, tile, copies, kvHeads, group, headDim }: Sizes,
    seed: number,
    mask: (layout: Layout, heads: Heads) => Attend,
  ): Expression => {
    const length = tiles * tile
    const heads = kvHeads * group
    // Two documents where the row has two tiles: the first is one tile long.
    const own = (i: number) => (i % length < tile ? 0 : 1)
    return {
      values: {
        q: normal(seed, [copies * rows, length, heads * headDim]),
        k: normal(seed + 1, [copies * rows, length, kvHeads * headDim]),
        v: normal(seed + 2, [copies * rows, length, kvHeads * headDim]),
        documents: int64(
          [rows, length],
          Array.from({ length: rows * length }, (_, i) => own(i)),
        ),
        positions: int64(
          [rows, length],
          Array.from({ length: rows * length }, (_, i) => (i % length) - own(i) * tile),
        ),
      },
      build: ({ q, k, v, documents, positions }) => mask({ documents, positions }, { heads, kvHeads })(q, k, v),
    }
  }

  it('tiles alone, every key of the tile visible', () =>
    property(sizes, (s, seed) =>
      expression(s, seed, (_, heads) => (q, k, v) => attention(q, k, v, { copies: s.copies, tile: s.tile }, heads)),
    ))

  it('one tile and a bias: block-causal', () =>
    property(fc.tuple(sizes, dim), ([s, block], seed) =>
      expression({ ...s, copies: 1 }, seed, (layout, heads) => blockCausal(layout, block, heads)),
    ))

  it('several copies, each seeing its document', () =>
    property(sizes, (s, seed) => expression(s, seed, (layout, heads) => fullAttention(layout, s.copies, heads))))

  it('block diffusion in one tile', () =>
    property(
      sizes,
      (s, seed) =>
        expression({ ...s, copies: s.copies + 1 }, seed, (layout, heads) =>
          blockDiffusion(layout, { copies: s.copies, blockSize: s.tile, aligned: false }, heads),
        ),
      8,
    ))

  it('block diffusion in tiles of one or several blocks, in groups', () =>
    property(
      fc.record({
        copies: fc.integer({ min: 1, max: 3 }),
        blockSize: fc.constantFrom(4, 8, 16),
        group: fc.integer({ min: 1, max: 2 }),
        tiles: fc.constantFrom(1, 2, 6),
      }),
      ({ copies, blockSize, group, tiles }, seed) =>
        expression(
          { rows: 1, tiles, tile: 16, copies: copies + 1, kvHeads: 1, group, headDim: 2 },
          seed,
          (layout, heads) => blockDiffusion(layout, { copies, blockSize, aligned: true }, heads),
        ),
    ))
})

describe('gradients', () => {
  const x = input('x', 'float32', [2, 3])

  it('need a scalar loss', () => {
    expect(() => gradients(x, [x])).toThrow('the loss must be a scalar, got [2, 3]')
  })

  it('name a tensor that does not reach the loss', () => {
    expect(() => gradients(sum(x), [input('other', 'float32', [4])])).toThrow('a tensor [4] does not reach the loss')
  })

  it('name the operation without a gradient, and its place', () => {
    const build = () => sum(cast(cast(x, 'int64'), 'float32'))
    expect(() => gradients(scope('model.layers.0', build), [x])).toThrow('cast in model.layers.0 has no gradient')
    const { confidence } = predict(x, constant(normal(1, [3])), constant(normal(1, [2])))
    expect(() => gradients(sum(confidence), [x])).toThrow('predict has no gradient')
    const keys = input('keys', 'float32', [1, 5, 3])
    const bias = input('bias', 'float32', [1, 1, 2, 5])
    const mixed = cachedAttention(input('q', 'float32', [1, 2, 3]), { keys, values: keys, bias }, 1)
    expect(() => gradients(sum(mixed), [keys])).toThrow('cachedAttention has no gradient')
  })

  it('leave out what needs none: an operation without a gradient may stand before constants', async () => {
    const values = { x: normal(1, [2, 3]), n: int64([3], [1, 2, 3]) }
    await checkGradients(executor, { values, wanted: ['x'], build: (v) => mul(v.x, cast(v.n, 'float32')) })
  })
})

it('evaluates what it differentiates', async () => {
  const result = await evaluate(executor, {
    values: { x: { dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) } },
    build: ({ x }) => mul(x, x),
  })
  expect([...(result.data as Float32Array)]).toEqual([1, 4])
})
