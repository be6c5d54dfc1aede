// Attention under every mask against the definition: each query, head by head, over the keys that its mask lets it see.
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { evaluate, int64, normal } from '../../../../test/graph/gradient-check.ts'
import { random } from '../../../core/random.ts'
import type { TensorData } from '../../../core/types.ts'
import { type Attend, blockCausal, blockDiffusion, fullAttention, type Heads } from '../../../diffusion/attention.ts'
import { createExecutor } from '../../../runtime/onnxruntime/executor.ts'
import type { Tensor } from '../../tensor.ts'
import { constant } from '../input.ts'
import { cachedAttention, cachePlaces, storeInCache } from './cached.ts'
import { cachedAttentionBias, tileBias } from './masks.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

interface Sizes {
  rows: number
  length: number
  copies: number
  kvHeads: number
  group: number
  headDim: number
}

/** Packed documents of random lengths, each a multiple of `multiple`; positions count from the document's start. */
function documents(seed: number, { rows, length }: Sizes, multiple = 1) {
  const draw = random(seed)
  const ids: number[] = []
  const positions: number[] = []
  for (let row = 0; row < rows; row++) {
    let document = 0
    let position = 0
    for (let i = 0; i < length; i++) {
      if (position > 0 && position % multiple === 0 && draw.uniform() < 0.3) {
        document++
        position = 0
      }
      ids.push(document)
      positions.push(position++)
    }
  }
  return { ids, positions }
}

interface Place {
  copy: number
  row: number
  position: number
  document: number
}

/** softmax over the visible keys, in float64. */
function reference(
  [q, k, v]: TensorData[],
  { rows, length, copies, kvHeads, group, headDim }: Sizes,
  place: (copy: number, row: number, i: number) => Place,
  sees: (query: Place, key: Place) => boolean,
): Float64Array {
  const heads = kvHeads * group
  const out = new Float64Array(q.data.length)
  const at = (copy: number, row: number, i: number) => (copy * rows + row) * length + i
  for (let copy = 0; copy < copies; copy++)
    for (let row = 0; row < rows; row++)
      for (let i = 0; i < length; i++)
        for (let head = 0; head < heads; head++) {
          const query = (at(copy, row, i) * heads + head) * headDim
          const keys: { key: number; score: number }[] = []
          for (let other = 0; other < copies; other++)
            for (let j = 0; j < length; j++) {
              if (!sees(place(copy, row, i), place(other, row, j))) continue
              const key = (at(other, row, j) * kvHeads + Math.floor(head / group)) * headDim
              let score = 0
              for (let d = 0; d < headDim; d++) score += Number(q.data[query + d]) * Number(k.data[key + d])
              keys.push({ key, score: score / Math.sqrt(headDim) })
            }
          const total = keys.reduce((sum, { score }) => sum + Math.exp(score), 0)
          for (const { key, score } of keys)
            for (let d = 0; d < headDim; d++) out[query + d] += (Math.exp(score) / total) * Number(v.data[key + d])
        }
  return out
}

function expectClose(actual: ArrayLike<number | bigint>, expected: ArrayLike<number>) {
  expect(actual.length).toBe(expected.length)
  let worst = 0
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(Number(actual[i]) - expected[i]))
  expect(worst).toBeLessThan(1e-5)
}

const small = fc.record({
  rows: fc.integer({ min: 1, max: 2 }),
  copies: fc.integer({ min: 1, max: 3 }),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 3 }),
  headDim: fc.constantFrom(2, 6),
  seed: fc.nat(10_000),
})

const values = (seed: number, { rows, length, copies, kvHeads, group, headDim }: Sizes) => ({
  q: normal(seed, [copies * rows, length, kvHeads * group * headDim]),
  k: normal(seed + 1, [copies * rows, length, kvHeads * headDim]),
  v: normal(seed + 2, [copies * rows, length, kvHeads * headDim]),
})

/** Runs the traced attention and compares it with the definition. */
async function check(
  seed: number,
  sizes: Sizes,
  multiple: number,
  mask: (layout: { documents: Tensor; positions: Tensor }, heads: Heads) => Attend,
  sees: (query: Place, key: Place) => boolean,
) {
  const { rows, length, kvHeads, group } = sizes
  const { ids, positions } = documents(seed, sizes, multiple)
  const inputs = values(seed, sizes)
  const result = await evaluate(executor, {
    values: { ...inputs, documents: int64([rows, length], ids), positions: int64([rows, length], positions) },
    build: (x) =>
      mask({ documents: x.documents, positions: x.positions }, { heads: kvHeads * group, kvHeads })(x.q, x.k, x.v),
  })
  const place = (copy: number, row: number, i: number): Place => ({
    copy,
    row,
    position: positions[row * length + i],
    document: ids[row * length + i],
  })
  expectClose(result.data, reference([inputs.q, inputs.k, inputs.v], sizes, place, sees))
}

const property = <T>(arbitrary: fc.Arbitrary<T>, run: (value: T) => Promise<void>, numRuns = 12) =>
  fc.assert(fc.asyncProperty(arbitrary, run), { numRuns, seed: 7 })

describe('attention', () => {
  it('causal and block-causal within documents', () =>
    property(fc.tuple(small, fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 4 })), ([s, length, block]) =>
      check(
        s.seed,
        { ...s, copies: 1, length },
        1,
        (layout, heads) => blockCausal(layout, block, heads),
        (q, k) => q.document === k.document && Math.floor(q.position / block) >= Math.floor(k.position / block),
      ),
    ))

  it('bidirectional within documents, several copies apart', () =>
    property(fc.tuple(small, fc.integer({ min: 1, max: 6 })), ([s, length]) =>
      check(
        s.seed,
        { ...s, length },
        1,
        (layout, heads) => fullAttention(layout, s.copies, heads),
        (q, k) => q.copy === k.copy && q.document === k.document,
      ),
    ))

  // LLaDA2.0, equation 3, with K noised copies: own block in the own copy, earlier blocks in the clean copy, the last.
  const blockDiffusionMask = (block: number, clean: number) => (q: Place, k: Place) => {
    if (q.document !== k.document) return false
    const [a, b] = [Math.floor(q.position / block), Math.floor(k.position / block)]
    return q.copy === k.copy ? a === b || (q.copy === clean && a > b) : k.copy === clean && a > b
  }

  it('block diffusion, documents anywhere: one tile', () =>
    property(
      fc.tuple(small, fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 5 })),
      ([s, length, blockSize]) =>
        check(
          s.seed,
          { ...s, length, copies: s.copies + 1 },
          1,
          (layout, heads) => blockDiffusion(layout, { copies: s.copies, blockSize, aligned: false }, heads),
          blockDiffusionMask(blockSize, s.copies),
        ),
    ))

  it('block diffusion, documents at multiples of the block: tiles of blocks, groups of tiles', () =>
    property(
      fc.record({
        s: small,
        blockSize: fc.constantFrom(1, 4, 6, 8, 16, 24, 32),
        length: fc.constantFrom(16, 48, 96, 128),
        multiple: fc.constantFrom(1, 2),
      }),
      ({ s, blockSize, length, multiple }) =>
        check(
          s.seed,
          { ...s, copies: Math.min(2, s.copies) + 1, length },
          blockSize * multiple,
          (layout, heads) => blockDiffusion(layout, { copies: Math.min(2, s.copies), blockSize, aligned: true }, heads),
          blockDiffusionMask(blockSize, Math.min(2, s.copies)),
        ),
      24,
    ))

  it('block diffusion: one, two, three and four groups', async () => {
    for (const [blockSize, length] of [
      [32, 32],
      [32, 64],
      [32, 96],
      [32, 256],
      [1, 64],
    ])
      await check(
        11,
        { rows: 2, length, copies: 2, kvHeads: 2, group: 2, headDim: 4 },
        blockSize,
        (layout, heads) => blockDiffusion(layout, { copies: 1, blockSize, aligned: true }, heads),
        blockDiffusionMask(blockSize, 1),
      )
  })

  it('a length that tiles do not divide', () =>
    check(
      3,
      { rows: 2, length: 20, copies: 2, kvHeads: 1, group: 2, headDim: 4 },
      8,
      (layout, heads) => blockDiffusion(layout, { copies: 1, blockSize: 8, aligned: true }, heads),
      blockDiffusionMask(8, 1),
    ))

  it('over a KV cache gives what one pass over all positions gives, with symbolic sizes', () =>
    property(
      fc.record({ s: small, past: fc.integer({ min: 0, max: 5 }), block: fc.integer({ min: 1, max: 4 }) }),
      async ({ s, past, block }) => {
        const capacity = past + block + 2
        const sizes: Sizes = { ...s, copies: 1, length: past + block }
        const { rows, length, kvHeads, group, headDim } = sizes
        const { q, k, v } = values(s.seed, sizes)
        // A block sees itself and everything before it, so its rows of the full result need no other mask.
        const position = (i: number) => (i < past ? 0 : 1)
        const place = (copy: number, row: number, i: number): Place => ({
          copy,
          row,
          position: position(i),
          document: 0,
        })
        const full = reference([q, k, v], sizes, place, (a, b) => a.position >= b.position)
        const tail = (x: ArrayLike<number>, width: number) =>
          Float32Array.from({ length: rows * block * width }, (_, i) => {
            const [row, rest] = [Math.floor(i / (block * width)), i % (block * width)]
            return x[(row * length + past) * width + rest]
          })
        // [rows, capacity, heads * D], garbage behind the filled part.
        const cache = (x: TensorData): TensorData => {
          const width = kvHeads * headDim
          const data = new Float32Array(rows * capacity * width).fill(7)
          for (let row = 0; row < rows; row++) {
            const filled = (x.data as Float32Array).subarray(row * length * width, (row * length + past) * width)
            data.set(filled, row * capacity * width)
          }
          return { dtype: 'float32', shape: [rows, capacity, width], data }
        }
        const block3 = (x: TensorData, heads: number): TensorData => ({
          dtype: 'float32',
          shape: [rows, block, heads * headDim],
          data: tail(x.data as Float32Array, heads * headDim),
        })
        const heads = kvHeads * group
        const result = await evaluate(executor, {
          values: {
            q: block3(q, heads),
            k: block3(k, kvHeads),
            v: block3(v, kvHeads),
            key: cache(k),
            value: cache(v),
            lengths: int64([rows], new Array(rows).fill(past)),
            blocks: int64([rows, block], new Array(rows * block).fill(0)),
            ends: int64([rows, block], new Array(rows * block).fill(1)),
          },
          shapes: {
            q: ['B', 'L', heads * headDim],
            k: ['B', 'L', kvHeads * headDim],
            v: ['B', 'L', kvHeads * headDim],
            key: ['B', 'C', kvHeads * headDim],
            value: ['B', 'C', kvHeads * headDim],
            lengths: ['B'],
            blocks: ['B', 'L'],
            ends: ['B', 'L'],
          },
          build: ({ q, k, v, key, value, lengths, blocks, ends }) => {
            const places = cachePlaces(lengths, blocks)
            const keys = storeInCache(key, places, k)
            const values = storeInCache(value, places, v)
            return cachedAttention(q, { keys, values, bias: cachedAttentionBias(blocks, ends, lengths, key) }, kvHeads)
          },
        })
        expect(result.shape).toEqual([rows, block, heads * headDim])
        expectClose(result.data, tail(Float32Array.from(full), heads * headDim))
      },
    ))
})

it('a bias is 0 where a key is visible and -inf elsewhere', async () => {
  const layout = { positions: int64([1, 4], [0, 1, 2, 0]), documents: int64([1, 4], [0, 0, 0, 1]) }
  const result = await evaluate(executor, {
    values: layout,
    build: ({ positions, documents }) =>
      tileBias('block-causal', {
        positions,
        documents,
        blockSize: constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(2n) }),
        tile: 4,
      }),
  })
  const hidden = Number.NEGATIVE_INFINITY
  expect(result.shape).toEqual([1, 1, 1, 1, 1, 4, 4])
  expect([...(result.data as Float32Array)]).toEqual([
    ...[0, 0, hidden, hidden],
    ...[0, 0, hidden, hidden],
    ...[0, 0, 0, hidden],
    ...[hidden, hidden, hidden, 0],
  ])
})

it('a cache shows what is filled, and of the new positions what blocks and ends say', async () => {
  const visible = await evaluate(executor, {
    values: {
      // A root, a branch of two, another branch; and a row in two blocks with padding.
      blocks: int64([2, 4], [0, 1, 2, 3, 5, 6, 6, -1]),
      ends: int64([2, 4], [9, 3, 3, 4, 99, 99, 99, 0]),
      lengths: int64([2], [1, 2]),
      cache: normal(1, [2, 6, 3]),
    },
    shapes: { blocks: ['B', 'T'], ends: ['B', 'T'], lengths: ['B'], cache: ['B', 'C', 3] },
    build: ({ blocks, ends, lengths, cache }) => cachedAttentionBias(blocks, ends, lengths, cache),
  })
  expect(visible.shape).toEqual([2, 1, 4, 6])
  const rows = Array.from({ length: 8 }, (_, i) =>
    [...(visible.data as Float32Array).subarray(6 * i, 6 * i + 6)].map((bias) => (bias === 0 ? 'x' : '.')).join(''),
  )
  expect(rows).toEqual(['xx....', 'xxx...', 'xxxx..', 'xx..x.', 'xxx...', 'xxxxx.', 'xxxxx.', 'xx...x'])
  expect(new Set(visible.data as Float32Array)).toEqual(new Set([0, Number.NEGATIVE_INFINITY]))
})

it('new keys are written behind what each row of a cache holds, and nothing else changes', async () => {
  const cache = normal(3, [2, 5, 2])
  const update = normal(4, [2, 2, 2])
  const result = await evaluate(executor, {
    values: { cache, update, lengths: int64([2], [0, 3]), ids: int64([2, 2], [0, 0, 0, 0]) },
    shapes: { cache: ['B', 'C', 2], update: ['B', 'T', 2], lengths: ['B'], ids: ['B', 'T'] },
    build: ({ cache, update, lengths, ids }) => storeInCache(cache, cachePlaces(lengths, ids), update),
  })
  const expected = (cache.data as Float32Array).slice()
  expected.set((update.data as Float32Array).subarray(0, 4), 0)
  expected.set((update.data as Float32Array).subarray(4), 16)
  expect(result.data).toEqual(expected)
})
