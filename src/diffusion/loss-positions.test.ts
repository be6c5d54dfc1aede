import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { openSafetensors } from '../checkpoint/safetensors.ts'
import type { Batch } from '../data/types.ts'
import { lossPositions } from './loss-positions.ts'

const golden = (name: string) => fileURLToPath(new URL(`../../test/golden/llama-tied/${name}`, import.meta.url))

describe('lossPositions', () => {
  it('weighs given logits to the losses that PyTorch computed', async () => {
    const cases = JSON.parse(await readFile(golden('cases.json'), 'utf8'))
    const file = await openSafetensors(golden('cases.safetensors'))
    const integers = async (name: string) => Int32Array.from((await file.readRaw(name)).data as Int32Array, Number)
    const [rows, length] = [cases.batch as number, cases.length as number]
    const size = rows * length
    const logits = await file.read('logits.bdlm_noised_half')
    const ratios = await file.read('t')
    const batch: Batch = {
      rows,
      length,
      ids: await integers('input_ids'),
      documents: await integers('document_ids'),
      positions: Int32Array.from({ length: size }, (_, i) => i % length),
      maskable: new Uint8Array(size).fill(1),
      padding: new Uint8Array(size),
      documentIds: [],
      tokens: size,
      bytes: size,
    }
    const masked = Uint8Array.from(await integers('masked'))
    await file.close()
    const t = Float32Array.from({ length: size }, (_, i) => ratios[Math.floor(i / length)]!)
    for (const weighting of ['elbo', 'mean'] as const) {
      const { index, labels, weights } = lossPositions(
        { copies: 1, masked, t, elboWeight: undefined },
        batch,
        batch.maskable,
        weighting,
      )
      const count = weighting === 'elbo' ? size : index.length
      let loss = 0
      for (const [i, position] of index.entries()) {
        const row = logits.subarray((position * logits.length) / size, ((position + 1) * logits.length) / size)
        const largest = row.reduce((a, b) => Math.max(a, b))
        const normaliser = largest + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0))
        loss += (weights[i]! * (normaliser - row[labels[i]!]!)) / count
      }
      expect(Math.abs(loss / cases.losses[`bdlm.${weighting}`] - 1)).toBeLessThan(1e-6)
    }
  })
})
