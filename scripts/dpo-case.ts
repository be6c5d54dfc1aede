// A small case of preference training as JSON, for scripts/check_dpo.py: `npx tsx scripts/dpo-case.ts FILE`. Weights, pairs and
// masks are those of src/objectives/dpo.test.ts, which holds what PyTorch makes of them.
import { writeFileSync } from 'node:fs'
import { drawPairs } from '../src/diffusion/noise.ts'
import { pairedBatch } from '../test/paired-batch.ts'
import { tinyLlama } from '../test/tiny-llama.ts'

const [path] = process.argv.slice(2)
if (path === undefined) {
  process.stderr.write('usage: npx tsx scripts/dpo-case.ts FILE\n')
  process.exit(2)
}
const [blockSize, draws] = [4, 2]
const { model, weights } = tinyLlama()
const batch = pairedBatch({ length: 16, blockSize })
const { masked } = drawPairs(batch, { seed: 3, blockSize, draws })
const size = batch.rows * batch.length

function answer(start: number) {
  let end = start + 1
  while (end % batch.length !== 0 && batch.documents[end] === batch.documents[start]) end++
  const part = <T extends Int32Array | Uint8Array>(values: T, first = 0) => [
    ...values.subarray(first + start, first + end),
  ]
  return {
    ids: part(batch.ids),
    scored: part(batch.maskable).map((flag, i) => (flag === 1 && batch.padding[start + i] === 0 && i > 0 ? 1 : 0)),
    masked: Array.from({ length: draws }, (_, draw) => part(masked, draw * size)),
  }
}

writeFileSync(
  path,
  JSON.stringify({
    ...{ config: model.config, mask: 39, block_size: blockSize, beta: 0.3, label_smoothing: 0.1 },
    weights: Object.fromEntries([...weights].map(([name, { shape, data }]) => [name, { shape, data: [...data] }])),
    pairs: batch.pairs!.map(({ chosen, rejected, reference }) => ({
      ...{ chosen: answer(chosen), rejected: answer(rejected) },
      reference: [reference!.chosen, reference!.rejected],
    })),
  }),
)
