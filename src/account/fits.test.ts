import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { inspectCheckpoint, openCheckpoint } from '../checkpoint/index.ts'
import { tinyModel } from '../checkpoint/names.ts'
import { quantize } from '../jobs/quantize.ts'
import { createModel } from '../models/index.ts'
import { fits } from './fits.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-fits-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** Bytes of the tensors that a folder stores. */
async function storedBytes(path: string): Promise<number> {
  const checkpoint = await openCheckpoint(path)
  const { storedTypes } = await inspectCheckpoint(checkpoint, undefined)
  await checkpoint.close()
  return storedTypes.reduce((sum, { bytes }) => sum + bytes, 0)
}

it('counts the bytes that quantize writes', async () => {
  const checkpoint = await openCheckpoint(tinyModel)
  const found = new Map(
    fits(createModel(checkpoint.config), 1e9).map(({ format, weightBytes }) => [format, weightBytes]),
  )
  await checkpoint.close()
  expect(found.get('float32')).toBe(await storedBytes(tinyModel))
  for (const [flags, settings] of [
    ['--bits 4', { bits: 4 }],
    ['--bits 8', { bits: 8 }],
    ['--bits 8 --activations 8', { bits: 8, activations: 8 }],
  ] as const) {
    const out = join(folder, flags)
    await quantize({ model: tinyModel, out, ...settings })
    expect(found.get(flags), flags).toBe(await storedBytes(out))
  }
})

it('says how long a text may be where little room is left', async () => {
  const checkpoint = await openCheckpoint(tinyModel)
  const model = createModel(checkpoint.config)
  await checkpoint.close()
  const whole = fits(model, 4e9).map(({ positions }) => positions)
  expect(whole).toEqual([2048, 2048, 2048, 2048])
  // A position of the cache: keys and values of 4 layers, 2 heads of 32 numbers in float32.
  const [float32] = fits(model, 300e6 + 3.29e6 + 2 * 4 * 4 * 2 * 32 * 100)
  expect(float32.positions).toBeGreaterThan(90)
  expect(float32.positions).toBeLessThan(110)
  expect(fits(model, 100e6).map(({ positions }) => positions)).toEqual([0, 0, 0, 0])
})
