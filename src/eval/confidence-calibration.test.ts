// Calibration of a model whose logits are made too sharp or too flat on purpose.
import { afterAll, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { tinyModel } from '../jobs/quickstart.ts'
import { createModel } from '../models/index.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { taskRows } from '../tasks/index.ts'
import { calibrateConfidence } from './confidence-calibration.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

it('undoes a factor on the logits', async () => {
  const loaded = await load(tinyModel)
  const { tokenizer } = loaded
  const config = { ...loaded.model.config, mask_token_id: tokenizer.tokenToId('<|mask|>'), same_token_labels: false }
  const texts = [...taskRows({ names: ['sort', 'reverse'], count: 60, seed: 3, split: 'test' })].map((row) => {
    const prompt = tokenizer.encode(row.prompt)
    return { ids: [...prompt, ...tokenizer.encode(row.completion)], start: prompt.length }
  })
  const norm = 'model.norm.weight'
  const at = async (factor: number) => {
    const { shape, data } = loaded.parameters.get(norm)!
    const parameters = new Map(loaded.parameters).set(norm, { shape, data: data.map((value) => value * factor) })
    return calibrateConfidence(executor, { model: createModel(config), parameters }, texts, { blockSize: 8 })
  }
  const plain = await at(1)
  expect(plain.tokens).toBeGreaterThan(60)
  for (const factor of [0.5, 2]) {
    const { scale, nll, ece } = await at(factor)
    expect(scale * factor).toBeCloseTo(plain.scale, 5)
    expect(nll.calibrated).toBeCloseTo(plain.nll.calibrated, 4)
    expect(nll.calibrated).toBeLessThanOrEqual(nll.raw)
    expect(ece.calibrated).toBeCloseTo(plain.ece.calibrated, 3)
  }
  await expect(calibrateConfidence(executor, loaded, texts, { blockSize: 8 })).rejects.toThrow('diffusion model')
  const model = createModel(config)
  const nothing = calibrateConfidence(executor, { ...loaded, model }, [{ ids: [1, 2], start: 2 }], { blockSize: 8 })
  await expect(nothing).rejects.toThrow('nothing to calibrate on')
})
