// Bits per byte of the embedded model against what PyTorch computes from the same rows, whatever the layout of the batches:
// python scripts/check_likelihood.py models/tiny test/likelihood/rows.jsonl
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'
import { load } from '../src/checkpoint/load.ts'
import { validationBatches } from '../src/data/index.ts'
import { wholeFiles } from '../src/jobs/evaluate.ts'
import { tinyModel } from '../src/jobs/quickstart.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { createEvaluator } from '../src/train/evaluator.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const rows = fileURLToPath(new URL('./likelihood/rows.jsonl', import.meta.url))
const pytorch = { bitsPerByte: 3.1318376, tokens: 759, bytes: 754 }

it.each([
  [1, 1],
  [8, 2],
  [64, 1],
])('is that of PyTorch with blocks of %i, %i rows to a batch', async (blockSize, batchRows) => {
  const { model, parameters, tokenizer } = await load(tinyModel)
  const options = wholeFiles([rows], { model, tokenizer }, { template: 'none', blockSize, seed: 0 })
  const batches = await validationBatches({ ...options, rows: batchRows }, 1e6)
  const evaluator = createEvaluator(executor, model, parameters, { finalBlockSize: blockSize })
  const { bitsPerByte, tokens, bytes } = await evaluator.evaluate(batches, { blockSize: 'ar', seed: 0 })
  await evaluator.dispose()
  expect({ tokens, bytes }).toEqual({ tokens: pytorch.tokens, bytes: pytorch.bytes })
  expect(bitsPerByte).toBeCloseTo(pytorch.bitsPerByte, 4)
})
