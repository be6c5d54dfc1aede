// `npm run docs:programs` writes the table of operations in docs/programs.md.
import { readFileSync, writeFileSync } from 'node:fs'
import { withOperations } from './operations.ts'

const path = new URL('../docs/programs.md', import.meta.url)
writeFileSync(path, withOperations(readFileSync(path, 'utf8')))
