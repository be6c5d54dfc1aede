// The code blocks of a Markdown page, with what their info strings say: ```sh needs=smollm2,minutes
import { UserError } from '../../src/core/types.ts'

export interface Block {
  page: string
  /** Line of the opening fence, counting from 1. */
  line: number
  language: string
  code: string
  /** What the block needs beyond a checkout and seconds of time; names of `needs`. */
  needs: readonly string[]
  /** The block is a file of this name, for the blocks after it. */
  file: string | undefined
  /** The block starts a server on this port, which runs until the page ends or another takes its place. */
  serves: number | undefined
}

/** What a block may need, by the name that stands in its info string. */
export const needs: Readonly<Record<string, string>> = {
  minutes: 'minutes of time',
  hours: 'hours of time',
  smollm2: 'SmolLM2-135M, 98 MB, from the Python package index',
  gsm8k: 'train.jsonl and test.jsonl of github.com/openai/grade-school-math',
  model: 'a model or a config.json of your own',
  measurement: 'what docs/benchmarks.md lists for each report',
  python: 'a Python with the packages that the page names',
  chromium: 'Chromium',
  docker: 'Docker',
  kubernetes: 'a cluster',
  root: 'root on a machine with systemd',
  cuda: 'an NVIDIA GPU, and a download of ONNX Runtime for it',
  golden: 'a folder of reference results',
  network: 'the registries of npm or Python packages',
}

const runnable = new Set(['sh', 'ts', 'js', 'python'])
const data = new Set(['yaml', 'json', 'jsonl', 'gbnf', 'text'])

/** Throws UserError where an info string has a language or a word that is not known. */
export function readBlocks(page: string, markdown: string): Block[] {
  const blocks: Block[] = []
  let open: { block: Block; code: string[] } | undefined
  for (const [index, text] of markdown.split('\n').entries()) {
    const fence = /^\s*```(.*)$/.exec(text)
    if (open && fence) {
      blocks.push({ ...open.block, code: open.code.join('\n') })
      open = undefined
    } else if (open) open.code.push(text)
    else if (fence) open = { block: readInfo(page, index + 1, fence[1].trim()), code: [] }
  }
  if (open) throw new UserError(`${page}:${open.block.line}: the code block does not end`)
  return blocks
}

export const runs = ({ language }: Block): boolean => runnable.has(language)

function readInfo(page: string, line: number, info: string): Block {
  const [language = '', ...words] = info.split(/\s+/)
  const fail = (what: string) => new UserError(`${page}:${line}: ${what} in the info string ${JSON.stringify(info)}`)
  if (!runnable.has(language) && !data.has(language)) throw fail(`expected one of ${[...runnable, ...data].join(', ')}`)
  const block: Block = { page, line, language, code: '', needs: [], file: undefined, serves: undefined }
  for (const word of words) {
    const [name, value = ''] = word.split('=')
    if (name === 'needs') block.needs = value.split(',')
    else if (name === 'file') block.file = value
    else if (name === 'serves') block.serves = Number(value)
    else throw fail(`unknown word ${name}`)
  }
  for (const need of block.needs) if (!(need in needs)) throw fail(`unknown need ${need}`)
  return block
}
