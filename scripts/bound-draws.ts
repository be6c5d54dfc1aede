// The draws of `unmask eval`'s bound, for an independent computation of it:
// `npx tsx scripts/bound-draws.ts MODEL DATA.jsonl [--length 512] [--samples 2] [--seed 0]` prints JSON, a document at a time:
// its ids with the padding, and for every draw the places of the mask token.
import { parseArgs } from 'node:util'
import { loadForInference } from '../src/checkpoint/load.ts'
import { validationBatches } from '../src/data/index.ts'
import { modelDecoding } from '../src/decode/model-decoding.ts'
import { drawBound } from '../src/diffusion/noise.ts'
import { wholeFiles } from '../src/jobs/evaluate.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    length: { type: 'string', default: '512' },
    samples: { type: 'string', default: '2' },
    seed: { type: 'string', default: '0' },
  },
})
const [source, data] = positionals
if (source === undefined || data === undefined) {
  process.stderr.write('usage: npx tsx scripts/bound-draws.ts MODEL DATA.jsonl [--length L] [--samples N] [--seed S]\n')
  process.exit(2)
}
const seed = Number(values.seed)
const loaded = await loadForInference(source)
const { blockSize } = modelDecoding(loaded)
const options = wholeFiles([data], loaded, { template: 'none', length: Number(values.length), blockSize, seed })
// At block size 1 all draws are the same.
const strata = blockSize === 1 ? 1 : Math.ceil(Number(values.samples) / 2)
const documents: { ids: number[]; masked: number[][] }[] = []
let row = 0
for (const batch of await validationBatches(options, Number.MAX_SAFE_INTEGER)) {
  const draws = Array.from({ length: strata }, (_, stratum) =>
    drawBound(batch, { blockSize, seed, row, stratum, strata }),
  )
  const size = batch.rows * batch.length
  for (let start = 0; start < size; ) {
    let end = start + 1
    while (end % batch.length !== 0 && batch.documents[end] === batch.documents[start]) end++
    if (batch.documents[start]! >= 0) {
      const masked = draws.flatMap(({ copies, masked }) =>
        Array.from({ length: copies }, (_, copy) =>
          Array.from({ length: end - start }, (_, i) => i).filter((i) => masked[copy * size + start + i] === 1),
        ),
      )
      documents.push({ ids: [...batch.ids.subarray(start, end)], masked })
    }
    start = end
  }
  row += batch.rows
}
const { mask_token_id: maskTokenId, same_token_labels: sameToken } = loaded.model.config
process.stdout.write(`${JSON.stringify({ blockSize, maskTokenId, shift: sameToken === false, documents })}\n`)
