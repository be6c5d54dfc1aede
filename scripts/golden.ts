// npm run golden -- DIR: compares every model folder under DIR with its reference results, one JSON line per case.
// A folder without config.json holds results for a GGUF file, which SMOLLM2_GGUF names.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type CaseResult, checkFolder } from '../test/golden/check.ts'
import { checkGguf } from '../test/golden/gguf.ts'

const [root] = process.argv.slice(2)
if (!root || !existsSync(root)) {
  console.error('usage: [SMOLLM2_GGUF=FILE] npm run golden -- DIR   (a folder of model folders, each with cases.json)')
  process.exit(2)
}
const gguf = process.env.SMOLLM2_GGUF

async function check(name: string): Promise<CaseResult[]> {
  const folder = join(root, name)
  if (existsSync(join(folder, 'config.json'))) return checkFolder(folder)
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
