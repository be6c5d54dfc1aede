// npm run golden -- DIR [--executor torch]: compares every model folder under DIR with its reference results, one JSON line per
// case. PyTorch runs in the Python that UNMASK_PYTHON names.
// A folder without config.json holds results for a GGUF file, which SMOLLM2_GGUF names.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { backEndNames } from '../test/golden/back-ends.ts'
import { type CaseResult, checkFolder } from '../test/golden/check.ts'
import { checkGguf } from '../test/golden/gguf.ts'

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { executor: { type: 'string', default: 'onnxruntime' } },
})
const [root] = positionals
const backEnd = backEndNames.find((name) => name === values.executor)
if (!root || !existsSync(root) || !backEnd) {
  console.error(
    `usage: [SMOLLM2_GGUF=FILE] npm run golden -- DIR [--executor ${backEndNames.join('|')}]   ` +
      '(a folder of model folders, each with cases.json)',
  )
  process.exit(2)
}
const gguf = process.env.SMOLLM2_GGUF

async function check(name: string): Promise<CaseResult[]> {
  const folder = join(root, name)
  if (existsSync(join(folder, 'config.json'))) return checkFolder(folder, backEnd)
  if (gguf) return checkGguf(folder, gguf)
  const note = 'skipped: it has no config.json; SMOLLM2_GGUF=FILE checks it with that GGUF model'
  return [{ folder: name, case: 'model', error: null, tolerance: null, pass: null, note }]
}

let failed = 0
for (const name of readdirSync(root).sort()) {
  if (!existsSync(join(root, name, 'cases.json'))) continue
  for (const result of await check(name)) {
    console.log(JSON.stringify(result))
    if (result.pass === false) failed++
  }
}
process.exit(failed > 0 ? 1 : 0)
