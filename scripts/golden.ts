// npm run golden -- DIR: compares every model folder under DIR with its reference results, one JSON line per case.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { checkFolder } from '../test/golden/check.ts'

const [root] = process.argv.slice(2)
if (!root || !existsSync(root)) {
  console.error('usage: npm run golden -- DIR   (a folder of model folders, each with config.json and cases.json)')
  process.exit(2)
}
let failed = 0
for (const name of readdirSync(root).sort()) {
  const folder = join(root, name)
  if (!existsSync(join(folder, 'cases.json'))) continue
  if (!existsSync(join(folder, 'config.json'))) continue
  for (const result of await checkFolder(folder)) {
    console.log(JSON.stringify(result))
    if (result.pass === false) failed++
  }
}
process.exit(failed > 0 ? 1 : 0)
