// Fills a gap in a program, and so repairs one: cut the wrong part out and let it be filled.
//   node code-infill.mjs file.js 3          fills line 3
//   node code-infill.mjs file.js 3 5 24     fills lines 3 to 5 with 24 tokens
// Needs a diffusion model: others write from left to right only.
import { readFile } from 'node:fs/promises'
import { ask } from './client.mjs'

const [file, from, to = from, tokens = '16'] = process.argv.slice(2)
if (!from) throw new Error('usage: node code-infill.mjs FILE FIRST_LINE [LAST_LINE] [TOKENS]')

const lines = (await readFile(file, 'utf8')).split('\n')
const prompt = lines
  .slice(0, Number(from) - 1)
  .map((line) => `${line}\n`)
  .join('')
const suffix = `\n${lines.slice(Number(to)).join('\n')}`
const { choices } = await ask('completions', { prompt, suffix, max_tokens: Number(tokens) })
console.log(prompt + choices[0].text + suffix)
