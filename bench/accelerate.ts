// bench accelerate: an autoregressive model alone and with an adapter that drafts for it, in turn: speed, whether the answers
// are the same, and whether sampled ones have the same distribution.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { type InferenceModel, loadAdapterFor, loadForInference } from '../src/checkpoint/load.ts'
import { UserError } from '../src/core/types.ts'
import { readDocuments } from '../src/data/index.ts'
import { complete } from '../src/decode/index.ts'
import { taskPrompts } from '../src/eval/decoding.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { TASK_NAMES, type TaskName } from '../src/tasks/index.ts'
import { createGenerator, type GenerateSettings, type Generator } from '../src/text/generator.ts'
import { promptIds } from '../src/text/prompt.ts'
import { alternate, report } from './measure.ts'

export const usage = `usage: npm run bench -- accelerate --model MODEL --adapter FOLDER [flags]

Decodes prompts with MODEL alone (the peer) and with the adapter of \`unmask accelerate\`, in turn: tokens per second and per
forward, milliseconds per forward, and how many answers are the same tokens (where the rounding of a forward of several rows
turns a near tie, they are not). With --samples, one prompt is answered that many times with temperature 1 by each, and a
G-test compares the two distributions of the first tokens: its p-value is far from 0 where they are one.

  --tasks LIST      tasks with prompts, of ${TASK_NAMES.join(', ')} (default: all; not with --data)
  --data FILE       prompts of the rows of a file instead, as a chat where the model knows one
  --prompt-column N, --completion-column N   names of its columns
  --prompts N       prompts, spread over the tasks (default 500)
  --max-new-tokens N  (default 64)
  --rounds N        runs of each whose median is taken (default 3)
  --samples N       answers for the G-test (default 0: none)
  --sample-prompt T the prompt of those answers, as it is (default: the first of the prompts)
  --first N         tokens of an answer that it looks at (default 3)
  --threads N       threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      adapter: { type: 'string' },
      tasks: { type: 'string', default: TASK_NAMES.join(',') },
      data: { type: 'string' },
      'prompt-column': { type: 'string' },
      'completion-column': { type: 'string' },
      prompts: { type: 'string', default: '500' },
      'max-new-tokens': { type: 'string', default: '64' },
      rounds: { type: 'string', default: '3' },
      samples: { type: 'string', default: '0' },
      'sample-prompt': { type: 'string' },
      first: { type: 'string', default: '3' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const { model, adapter: folder, data } = values
  if (!model || !folder) throw new UserError('bench accelerate: name a model (--model) and its adapter (--adapter)')
  const loaded = await loadForInference(model)
  const adapter = await loadAdapterFor(loaded.model, folder)
  const count = Number(values.prompts)
  const prompts = data
    ? await promptsOf(data, loaded, count, values['prompt-column'], values['completion-column'])
    : promptsOfTasks(values.tasks.split(',') as TaskName[], loaded, count)
  const executor = createExecutor({ threads: Number(values.threads) })
  try {
    const alone = await createGenerator(executor, loaded, { mode: 'ar' })
    const drafting = await createGenerator(executor, loaded, { adapter })
    const maxNewTokens = Number(values['max-new-tokens'])
    const [base, accelerated] = [alone, drafting].map((generator) => contestant(generator, prompts, maxNewTokens))
    const speeds = await alternate(
      { base: base.run, accelerated: accelerated.run },
      { rounds: Number(values.rounds), warmup: 1 },
    )
    const { masks, rowCost } = adapter.config.decoding
    const label = `${loaded.name}, masks ${masks}, row cost ${rowCost}, ${values.threads} threads`
    const line = { bench: 'accelerate', case: label, peer: 'alone' }
    const [own, peer] = [accelerated.last(), base.last()]
    report({ ...line, value: speeds.accelerated, unit: 'tokens/s', peerValue: speeds.base })
    report({ ...line, value: own.tokens / own.forwards, unit: 'tokens/forward', peerValue: 1 })
    const milliseconds = ({ seconds, forwards }: Totals) => (1000 * seconds) / forwards
    report({ ...line, value: milliseconds(own), unit: 'ms/forward', peerValue: milliseconds(peer) })
    const equal = own.answers.filter((answer, i) => answer.join() === peer.answers[i].join()).length
    report({ bench: 'accelerate', case: label, value: equal, unit: `equal answers of ${prompts.length}` })

    const samples = Number(values.samples)
    if (samples > 0) {
      const first = Number(values.first)
      const text = values['sample-prompt']
      const prompt = text === undefined ? prompts[0] : promptIds(text, loaded)
      const a = await counts(alone, prompt, { samples, first, seed: 0 })
      const b = await counts(drafting, prompt, { samples, first, seed: samples })
      const { g, freedom, p } = twoSampleGTest(a, b)
      const what = `${label}: ${samples} samples of ${first} tokens each`
      report({ bench: 'accelerate', case: what, value: g, unit: `G, ${freedom} degrees of freedom` })
      report({ bench: 'accelerate', case: what, value: p, unit: 'p-value' })
    }
  } finally {
    await executor.dispose()
  }
}

function promptsOfTasks(tasks: readonly TaskName[], loaded: InferenceModel, count: number): (readonly number[])[] {
  const unknown = tasks.filter((task) => !TASK_NAMES.includes(task))
  if (unknown.length > 0) throw new UserError(`bench accelerate: there is no task ${unknown.join(', ')}`)
  const encode = (text: string) => promptIds(text, loaded)
  return taskPrompts(tasks, Math.ceil(count / tasks.length), { seed: 0, encode })
    .slice(0, count)
    .map(({ ids }) => ids)
}

async function promptsOf(
  path: string,
  { tokenizer, model }: InferenceModel,
  count: number,
  prompt: string | undefined,
  completion: string | undefined,
): Promise<(readonly number[])[]> {
  const prompts: number[][] = []
  const columns = { ...(prompt ? { prompt } : {}), ...(completion ? { completion } : {}) }
  for await (const { ids, maskable } of readDocuments({ paths: [path], tokenizer, seed: 0, columns })) {
    const first = maskable.indexOf(1)
    if (first > 1 && first < model.dimensions.maxPositions / 2) prompts.push([...ids.subarray(0, first)])
    if (prompts.length === count) break
  }
  if (prompts.length === 0) throw new UserError(`bench accelerate: ${path} has no rows with a prompt`)
  return prompts
}

interface Totals {
  tokens: number
  forwards: number
  seconds: number
  answers: number[][]
}

/** Decodes all prompts, one after the other, and returns tokens per second. */
function contestant(generator: Generator, prompts: readonly (readonly number[])[], maxNewTokens: number) {
  let totals: Totals
  return {
    last: () => totals,
    async run(): Promise<number> {
      totals = { tokens: 0, forwards: 0, seconds: 0, answers: [] }
      for (const prompt of prompts) {
        const result = await complete(generator.generate(prompt, { maxNewTokens }))
        for (const key of ['tokens', 'forwards', 'seconds'] as const) totals[key] += result[key]
        totals.answers.push(result.ids)
      }
      return totals.tokens / totals.seconds
    },
  }
}

/** How often each beginning comes up when a prompt is answered many times with temperature 1. */
async function counts(
  generator: Generator,
  prompt: readonly number[],
  { samples, first, seed }: { samples: number; first: number; seed: number },
): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (let i = 0; i < samples; i += 16) {
    const together = Array.from({ length: Math.min(16, samples - i) }, (_, j) => {
      const settings: GenerateSettings = { maxNewTokens: first, temperature: 1, seed: seed + i + j }
      return complete(generator.generate(prompt, settings))
    })
    for (const { ids } of await Promise.all(together)) found.set(ids.join(), (found.get(ids.join()) ?? 0) + 1)
  }
  return found
}

/** G-test of homogeneity (Woolf, 1957); texts with fewer than 5 expected in either sample are one bin. */
export function twoSampleGTest(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>) {
  const sum = (counts: ReadonlyMap<string, number>) => [...counts.values()].reduce((x, y) => x + y, 0)
  const [na, nb] = [sum(a), sum(b)]
  const bins: [number, number][] = []
  let rest: [number, number] = [0, 0]
  for (const key of new Set([...a.keys(), ...b.keys()])) {
    const bin: [number, number] = [a.get(key) ?? 0, b.get(key) ?? 0]
    if (((bin[0] + bin[1]) * Math.min(na, nb)) / (na + nb) >= 5) bins.push(bin)
    else rest = [rest[0] + bin[0], rest[1] + bin[1]]
  }
  if (rest[0] + rest[1] > 0) bins.push(rest)
  const term = (observed: number, expected: number) => (observed > 0 ? observed * Math.log(observed / expected) : 0)
  let g = 0
  for (const [x, y] of bins) {
    const share = (x + y) / (na + nb)
    g += 2 * (term(x, share * na) + term(y, share * nb))
  }
  const freedom = bins.length - 1
  return { g, freedom, p: freedom === 0 ? 1 : upperTail(g, freedom) }
}

/** Probability that chi-square exceeds x, by Wilson and Hilferty's cube root and the normal tail (Abramowitz, Stegun 26.2.17). */
function upperTail(x: number, freedom: number): number {
  const spread = 2 / (9 * freedom)
  const z = (Math.cbrt(x / freedom) - (1 - spread)) / Math.sqrt(spread)
  const t = 1 / (1 + 0.2316419 * Math.abs(z))
  const series = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
  const tail = (Math.exp(-(z * z) / 2) / Math.sqrt(2 * Math.PI)) * series
  return z >= 0 ? tail : 1 - tail
}
