// Batches of completions in memory: nothing lost or doubled within an epoch, and exact resume.
import { describe, expect, it } from 'vitest'
import { completionBatches, completionSource, splitCompletions } from './completions.ts'

const completions = Array.from({ length: 25 }, (_, i) => ({
  prompt: [100 + i, 1],
  completion: Array.from({ length: 1 + (i % 5) }, (_, j) => 10 + j),
}))
const options = { rows: 2, length: 12, blockSize: 1, eosId: 0, byteLength: (ids: ArrayLike<number>) => ids.length }

describe('completionSource', () => {
  it('gives every completion once in an epoch, its prompt not maskable', async () => {
    const source = completionSource(completions, { ...options, seed: 1 })
    const seen: number[] = []
    while (seen.length < completions.length) {
      const batch = await source.next()
      batch.ids.forEach((id, i) => {
        if (batch.documents[i] < 0) return
        if (batch.positions[i] === 0) seen.push(id)
        expect(batch.maskable[i]).toBe(batch.positions[i] < 2 ? 0 : 1)
      })
    }
    expect(new Set(seen.slice(0, completions.length)).size).toBe(completions.length)
  })

  it('continues from a position with the same batches', async () => {
    const source = completionSource(completions, { ...options, seed: 1 })
    for (let i = 0; i < 4; i++) await source.next()
    const position = JSON.parse(JSON.stringify(source.position())) as Record<string, unknown>
    const expected = [await source.next(), await source.next()]
    const again = completionSource(completions, { ...options, seed: 1 })
    await again.restore(position)
    expect([await again.next(), await again.next()]).toEqual(expected)
    const other = completionSource(completions.slice(1), { ...options, seed: 1 })
    await expect(other.restore(position)).rejects.toThrow('have changed')
  })

  it('needs something to train on', () => {
    expect(() => completionSource([{ prompt: [1], completion: [] }], { ...options, seed: 1 })).toThrow('no completion')
  })
})

it('packs each completion once, up to the tokens asked for', () => {
  const all = completionBatches(completions, options, 1e6)
  expect(all.reduce((sum, { documentIds }) => sum + documentIds.length, 0)).toBe(completions.length)
  const some = completionBatches(completions, options, 20)
  expect(some).toEqual(all.slice(0, some.length))
  expect(some.reduce((sum, batch) => sum + batch.tokens, 0)).toBeGreaterThanOrEqual(20)
  expect(some.slice(0, -1).reduce((sum, batch) => sum + batch.tokens, 0)).toBeLessThan(20)
})

it('holds out by a draw for each, so that more completions do not move others', () => {
  const { train, heldOut } = splitCompletions(completions, 7, 0.3)
  expect(train.length + heldOut.length).toBe(completions.length)
  expect(heldOut.length).toBeGreaterThan(0)
  expect(splitCompletions(completions.slice(0, 10), 7, 0.3).heldOut).toEqual(
    heldOut.filter((completion) => completions.slice(0, 10).some((early) => early === completion)),
  )
})

it('holds out one of few at least, and not all', () => {
  const sizes = (count: number, fraction: number) => {
    const { train, heldOut } = splitCompletions(completions.slice(0, count), 7, fraction)
    return [train.length, heldOut.length]
  }
  expect(sizes(5, 1e-9)).toEqual([4, 1])
  expect(sizes(2, 1 - 1e-9)).toEqual([1, 1])
  expect(sizes(5, 0)).toEqual([5, 0])
  expect(sizes(1, 1e-9)).toEqual([1, 0])
})
