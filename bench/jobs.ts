// bench jobs: models and modes on the held-out rows of a job, in turns: how well they answer, in how many forwards, how fast.
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { loadForInference } from '../src/checkpoint/load.ts'
import { UserError } from '../src/core/types.ts'
import { readDocuments } from '../src/data/index.ts'
import { settingsFromKeys } from '../src/decode/index.ts'
import { type Estimate, ratioDifference, ratioOfSums } from '../src/eval/estimate.ts'
import { isJsonObject, scoreJson } from '../src/eval/json-score.ts'
import { characterErrorRate, exactMatches } from '../src/eval/text-score.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { type TextResult, written } from '../src/text/assemble.ts'
import { createGenerator } from '../src/text/generator.ts'
import { documentStyle } from '../src/text/prompt.ts'
import { textOf } from '../src/tokenizer/stream.ts'
import { type Child, startChild } from './child.ts'
import { print, report } from './measure.ts'

export const usage = `usage: npm run bench -- jobs --data FILE[,FILE...] --way 'NAME=MODEL?SETTINGS' [--way ...] [flags]

Answers the rows of the files (a prompt and a completion each) in every way, 8 rows at a time in turn, and prints for each way
the character error rate, the share of exact answers, tokens per forward, tokens per second and the number of answers that are
the same tokens as those of the first way with the same model, or for a peer of the first way. Where all completions are JSON
objects, also the share of answers that are the same JSON, and precision, recall and F1 of their fields. Errors are standard
errors over the rows, of a value or of its difference from the peer's. SETTINGS are settings of decoding, such as mode=speculative&lookup=0. The first way is what the others' speed
is compared with.

A peer is node-llama-cpp on a GGUF file (scripts/to_gguf.py writes one), from the folder that NODE_LLAMA_CPP names, with or without
its InputLookupTokenPredictor (LOOKUP: the most tokens it drafts at a time). It decodes greedily, one token a forward.

  --peer 'NAME=FILE?lookup=LOOKUP'
  --prompts N         rows of each file (default 200)
  --max-new-tokens N  (default 128)
  --threads N         threads (default: the cores of the machine)
  --show N            answers to print, as JSON lines (default 0)
`

/** Rows that one way answers before the next has its turn. */
const TURN = 8

interface Row {
  ids: number[]
  prompt: string
  reference: string
}

interface Way {
  name: string
  model: string
  isPeer: boolean
  write(ids: readonly number[]): Promise<Written>
  results: Written[]
}

/** What an answer is judged by. */
type Written = Pick<TextResult, 'ids' | 'text' | 'tokens' | 'seconds'> & { forwards: number }

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: 'string' },
      way: { type: 'string', multiple: true, default: [] },
      peer: { type: 'string', multiple: true, default: [] },
      prompts: { type: 'string', default: '200' },
      'max-new-tokens': { type: 'string', default: '128' },
      threads: { type: 'string', default: String(availableParallelism()) },
      show: { type: 'string', default: '0' },
    },
  })
  if (!values.data || values.way.length === 0)
    throw new UserError('bench jobs: name the rows (--data) and at least one way to answer them (--way)')
  const executor = createExecutor({ threads: Number(values.threads) })
  const children = new Map<string, Child>()
  const generators = new Map<string, Awaited<ReturnType<typeof open>>>()
  async function open(model: string) {
    const loaded = await loadForInference(model)
    return { loaded, generator: await createGenerator(executor, loaded) }
  }
  try {
    const most = Number(values['max-new-tokens'])
    const ways: Way[] = []
    for (const text of values.way) {
      const { name, model, settings } = parseWay(text)
      const opened = generators.get(model) ?? (await open(model))
      generators.set(model, opened)
      const write = (ids: readonly number[]) =>
        written(opened.generator.write(ids, { maxNewTokens: most, ...settings }))
      ways.push({ name, model, isPeer: false, write, results: [] })
    }
    const [{ loaded }] = [...generators.values()] as [Awaited<ReturnType<typeof open>>]
    const rows: Row[] = []
    for (const file of values.data.split(',')) rows.push(...(await rowsOf(file, loaded, Number(values.prompts))))
    for (const text of values.peer) {
      const { name, model, query } = parseNamed(text)
      const child = children.get(model) ?? (await startPeer(model, values.threads))
      children.set(model, child)
      const lookup = query.get('lookup') ?? '0'
      const write = async (ids: readonly number[]) => {
        const answer = await child.ask<{ ids: number[]; seconds: number }>(`write ${most} ${lookup} ${ids.join()}`)
        const text = textOf(loaded.tokenizer, answer.ids, { after: ids })
        return { ...answer, text, tokens: answer.ids.length, forwards: Number.NaN }
      }
      ways.push({ name, model, isPeer: true, write, results: [] })
    }
    for (let start = 0; start < rows.length; start += TURN)
      for (const { write, results } of ways)
        for (const { ids } of rows.slice(start, start + TURN)) results.push(await write(ids))
    for (const row of rows.slice(0, Number(values.show)))
      print({
        prompt: row.prompt,
        reference: row.reference,
        answers: ways.map(({ results }) => results[rows.indexOf(row)]?.text),
      })
    const references = rows.map(({ reference }) => reference)
    for (const way of ways) {
      const [first] = ways as [Way]
      const same = ways.find(({ model }) => model === (way.isPeer ? first : way).model) as Way
      describe(way, { references, same, first })
    }
  } finally {
    for (const { generator } of generators.values()) await generator.dispose()
    for (const child of children.values()) await child.close()
    await executor.dispose()
  }
}

async function startPeer(file: string, threads: string): Promise<Child> {
  if (!process.env.NODE_LLAMA_CPP)
    throw new UserError('--peer: NODE_LLAMA_CPP must name a folder with node-llama-cpp in it')
  const script = fileURLToPath(new URL('./peers/llamacpp.mjs', import.meta.url))
  const child = await startChild(process.execPath, [script, file, threads, '0'])
  await child.ask('load')
  return child
}

function parseNamed(text: string): { name: string; model: string; query: URLSearchParams } {
  const [, name, model, query] = /^([^=]+)=([^?]+)(?:\?(.*))?$/.exec(text) ?? []
  if (!name || !model) throw new UserError(`${text}: expected NAME=MODEL or NAME=MODEL?setting=value&...`)
  return { name, model, query: new URLSearchParams(query) }
}

function parseWay(text: string): { name: string; model: string; settings: object } {
  const { name, model, query } = parseNamed(text)
  const given = [...query].map(([key, value]) => [key, Number.isNaN(Number(value)) ? value : Number(value)])
  return { name, model, settings: settingsFromKeys(Object.fromEntries(given)) }
}

async function rowsOf(file: string, loaded: Awaited<ReturnType<typeof loadForInference>>, count: number) {
  const { tokenizer, model } = loaded
  const rows: Row[] = []
  const options = {
    ...{ paths: [file], tokenizer, seed: 0, split: 'validation' as const, validationFraction: 1 - 2 ** -33 },
    ...{ rows: 1, length: model.dimensions.maxPositions, blockSize: 1, shuffleBuffer: 1 },
    ...documentStyle({ tokenizer, model }, {}),
  }
  for await (const { ids, maskable } of readDocuments(options)) {
    const first = maskable.indexOf(1)
    if (first < 1) throw new UserError(`${file}: expected rows with a prompt and a completion`)
    const prompt = [...ids.subarray(0, first)]
    // The completion without the token that ends it.
    const reference = textOf(tokenizer, ids.subarray(first, ids.length - 1), { after: prompt })
    rows.push({ ids: prompt, prompt: textOf(tokenizer, prompt, { after: [] }), reference })
    if (rows.length === count) break
  }
  return rows
}

function describe(way: Way, { references, same, first }: { references: string[]; same: Way; first: Way }): void {
  const line = { bench: 'jobs', case: way.name }
  const pairs = way.results.map(({ text }, i) => ({ text, reference: references[i] as string }))
  const estimate = (unit: string, { value, stderr }: Estimate) => report({ ...line, value, unit, error: stderr })
  estimate('character error rate', characterErrorRate(pairs))
  estimate('exact answers', exactMatches(pairs))
  if (references.every(isJsonObject)) {
    const { exact, precision, recall, f1 } = scoreJson(pairs)
    estimate('exact JSON', exact)
    estimate('field precision', precision)
    estimate('field recall', recall)
    estimate('field F1', f1)
  }
  const sums = ({ results }: Way, whole: 'forwards' | 'seconds') => ({
    parts: results.map(({ tokens }) => tokens),
    wholes: results.map((result) => result[whole]),
  })
  const ratio = ({ parts, wholes }: ReturnType<typeof sums>) => ratioOfSums(parts, wholes)
  if (!Number.isNaN(way.results[0]?.forwards)) estimate('tokens/forward', ratio(sums(way, 'forwards')))
  const [own, peer] = [sums(way, 'seconds'), sums(first, 'seconds')]
  const { stderr } = ratioDifference(own, peer)
  report({
    ...line,
    ...{ value: ratio(own).value, unit: 'tokens/s', peer: first.name, peerValue: ratio(peer).value, error: stderr },
  })
  const equal = way.results.filter(({ ids }, i) => ids.join() === same.results[i]?.ids.join()).length
  report({ ...line, value: equal, unit: 'same tokens', peer: same.name, peerValue: way.results.length })
}
