import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { compareCosts } from './cost-comparison.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-costs-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** A run with these evaluations: tokens and NELBO. A token takes 0.1 s and 6 operations. */
async function run(name: string, curve: readonly (readonly [number, number])[], accuracy?: number): Promise<string> {
  const path = join(folder, name)
  await mkdir(join(path, 'report'), { recursive: true })
  const lines = curve.map(([tokens, nelbo], step) => ({
    ...{ step, tokens, nelbo, elapsed_s: tokens / 10, flops: 6 * tokens },
    ...{ block_size: 4, stage: 0, rss_bytes: 1, peak_rss_bytes: 1 },
  }))
  await writeFile(join(path, 'metrics.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  if (accuracy !== undefined)
    await writeFile(join(path, 'report', 'report.json'), JSON.stringify({ diffusion: { score: { accuracy } } }))
  return path
}

it('compares what runs cost until the same NELBO, pair by pair', async () => {
  const a = await run(
    'a',
    [
      [0, 4],
      [100, 2],
    ],
    0.9,
  )
  const b = await run('b', [
    [0, 4],
    [200, 2],
  ])
  // 2 lies in the middle between the evaluations at 200 and 600 tokens, at 400.
  const c = await run(
    'c',
    [
      [0, 5],
      [200, 3],
      [600, 1],
    ],
    0.8,
  )
  const { pairs, ratios } = await compareCosts([a, b], [c, c])
  expect(pairs[0]).toMatchObject({
    target: 2,
    score: 0.9,
    scoreAgainst: 0.8,
    costAgainst: { tokens: 400, seconds: 40 },
  })
  // Ratios 0.25 and 0.5: mean 0.375, standard deviation 0.25 / sqrt 2, of two.
  expect(ratios.tokens).toEqual({ mean: 0.375, stderr: expect.closeTo(0.125, 12), atMost: false })
  expect(ratios.flops!.mean).toBeCloseTo(0.375, 12)
  // Energy was not measured.
  expect(ratios.joules).toBeUndefined()
})

it('says where the target was not reached, and what is no run', async () => {
  const a = await run('good', [
    [0, 4],
    [100, 1],
  ])
  const b = await run('bad', [
    [0, 4],
    [400, 2],
  ])
  const { pairs, ratios } = await compareCosts([a], [b])
  expect(pairs[0]!.costAgainst).toBeUndefined()
  expect(ratios.tokens).toEqual({ mean: 0.25, stderr: undefined, atMost: true })
  await expect(compareCosts([a, a], [b])).rejects.toThrow(/2 runs against 1/)
  await expect(compareCosts([folder], [b])).rejects.toThrow(/no metrics\.jsonl/)
})
