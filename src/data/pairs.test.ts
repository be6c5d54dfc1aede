// Preference pairs from files: errors that name the row, both answers in one batch, exact resume, splits by prompt.
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import type { Tokenizer } from '../tokenizer/types.ts'
import { type PairDocuments, pairBatches, pairSource, readPairs, splitPairs, tokensOf } from './pairs.ts'
import type { Batch } from './types.ts'

let tokenizer: Tokenizer
let folder: string
beforeAll(async () => {
  tokenizer = (await load(tinyModel)).tokenizer
  folder = await mkdtemp(join(tmpdir(), 'unmask-pairs-'))
})

async function readRows(rows: readonly unknown[], options: { badRows?: 'skip' | 'fail'; length?: number } = {}) {
  const path = join(folder, 'pairs.jsonl')
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join('\n'))
  const rendering = { template: 'plain', separator: '', turns: 'all' } as const
  return readPairs({ paths: [path], tokenizer, rendering, length: 32, ...options })
}

const row = (i: number) => ({ prompt: `${i % 4}=`, chosen: 'a'.repeat(1 + i), rejected: 'b'.repeat(2 + (i % 3)) })

describe('readPairs', () => {
  it('tokenises both answers behind one prompt, each with its end', async () => {
    const { pairs } = await readRows([{ prompt: 'x=', chosen: 'ab', rejected: 'c' }])
    const text = ({ ids }: { ids: Int32Array }) => tokenizer.decode([...ids])
    expect(pairs.map(({ chosen, rejected }) => [text(chosen), text(rejected)])).toEqual([
      ['x=ab<|endoftext|>', 'x=c<|endoftext|>'],
    ])
    expect([...pairs[0].chosen.maskable]).toEqual([0, 0, 1, 1, 1])
  })

  it('stops at a row whose prompts differ, with its file and line', async () => {
    const differing = { chosen: [{ role: 'user', content: 'a' }], rejected: [{ role: 'user', content: 'b' }] }
    await expect(readRows([row(0), differing])).rejects.toThrow(/pairs\.jsonl:2: the prompts differ/)
    const { pairs, report } = await readRows([row(0), differing, row(1)], { badRows: 'skip' })
    expect(pairs.map(({ id }) => id)).toEqual([0, 1])
    expect(report.badRows).toBe(1)
  })

  it('cuts long answers, and refuses what is then the same', async () => {
    const long = { prompt: 'x=', chosen: `${'a'.repeat(40)}b`, rejected: 'c' }
    const { pairs, report } = await readRows([long])
    expect(pairs[0].chosen.ids.length).toBe(32)
    expect(report.notes[0].reason).toContain('its end is left out')
    await expect(readRows([{ ...long, rejected: `${'a'.repeat(40)}c` }])).rejects.toThrow('the same in the first 32')
    await expect(readRows([{ ...long, prompt: 'x'.repeat(40) }])).rejects.toThrow('the prompt alone fills a row')
  })
})

it('splits by prompt, one prompt at least on either side', async () => {
  const { pairs, points } = await readRows(Array.from({ length: 12 }, (_, i) => row(i)))
  const promptOf = ({ chosen }: PairDocuments) => chosen.ids[0]
  for (const share of [0.001, 0.5, 1]) {
    const { train, heldOut } = splitPairs(pairs, points, share)
    expect(train.length + heldOut.length).toBe(12)
    const [left, right] = [new Set(train.map(promptOf)), new Set(heldOut.map(promptOf))]
    expect(left.size).toBeGreaterThan(0)
    expect(right.size).toBeGreaterThan(0)
    expect([...left].filter((prompt) => right.has(prompt))).toEqual([])
  }
  expect(() => splitPairs(pairs.slice(0, 1), points.slice(0, 1), 0.5)).toThrow('only one prompt')
})

const piece = (id: string, size: number, first: number) => ({
  id,
  ids: Int32Array.from({ length: size }, (_, i) => (i === 0 ? first : 7)),
  maskable: Uint8Array.from({ length: size }, (_, i) => (i === 0 ? 0 : 1)),
})
const pairsOf = (sizes: readonly (readonly [number, number])[]): PairDocuments[] =>
  sizes.map(([a, b], id) => ({ id, chosen: piece(`${id}c`, a, 2 * id), rejected: piece(`${id}r`, b, 2 * id + 1) }))
const packing = (rows: number, blockSize: number) => ({
  ...{ rows, length: 16, blockSize, eosId: 0 },
  byteLength: (ids: ArrayLike<number>) => ids.length,
})
const size = fc.integer({ min: 2, max: 16 })
const sizes = fc.array(fc.tuple(size, size), { minLength: 1, maxLength: 12 })
const blocks = fc.constantFrom(1, 4, 16)

/** The pairs of a batch by what stands where they are said to begin. */
const found = ({ pairs = [], ids }: Batch) => pairs.map(({ id, chosen, rejected }) => [id, ids[chosen], ids[rejected]])

describe('batches', () => {
  it('hold every pair once in an epoch, both answers of it', () =>
    fc.assert(
      fc.asyncProperty(sizes, blocks, fc.constantFrom(2, 4), async (sizes, blockSize, rows) => {
        const pairs = pairsOf(sizes)
        const options = packing(rows, blockSize)
        const batches = pairBatches(
          pairs.map((pair) => ({ pair, epoch: 0 })),
          options,
        )
        expect(batches.flatMap(found)).toEqual(pairs.map(({ id }) => [id, 2 * id, 2 * id + 1]))
        expect(batches.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(tokensOf(pairs, blockSize))
        const source = pairSource(pairs, { ...options, seed: 1 })
        const drawn: number[][] = []
        while (drawn.length < 2 * pairs.length)
          drawn.push(...(await source.next()).pairs!.map(({ id, epoch }) => [epoch, id]))
        const epoch = (number: number) => drawn.filter(([epoch]) => epoch === number).map(([, id]) => id)
        expect(epoch(0).sort((a, b) => a - b)).toEqual(pairs.map(({ id }) => id))
        expect(new Set(epoch(1)).size).toBe(epoch(1).length)
      }),
      { numRuns: 50 },
    ))

  it('continue from a position', async () => {
    const pairs = pairsOf(Array.from({ length: 9 }, (_, i) => [3 + (i % 5), 4 + (i % 7)] as const))
    const options = { ...packing(2, 4), seed: 5, referenceOf: (id: number) => ({ chosen: -id, rejected: -1 }) }
    const source = pairSource(pairs, options)
    for (let i = 0; i < 5; i++) await source.next()
    const position = JSON.parse(JSON.stringify(source.position())) as Record<string, unknown>
    const expected = [await source.next(), await source.next()]
    expect(expected[0].pairs![0].reference).toBeDefined()
    const again = pairSource(pairs, options)
    await again.restore(position)
    expect([await again.next(), await again.next()]).toEqual(expected)
    await expect(pairSource(pairs.slice(1), options).restore(position)).rejects.toThrow('have changed')
  })
})
