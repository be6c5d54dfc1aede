// `npm run docs:benchmarks` writes docs/benchmarks.md and the table of README from docs/reports.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { pages } from './benchmarks/page.ts'

for (const [file, make] of Object.entries(pages)) {
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url))
  const current = readFileSync(path, 'utf8')
  const made = make(current)
  if (made === current) continue
  writeFileSync(path, made)
  process.stdout.write(`wrote ${file}\n`)
}
