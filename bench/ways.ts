// Models and settings that benchmarks compare, and the rows of text that they continue.
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { type InferenceModel, loadForInference } from '../src/checkpoint/load.ts'
import { UserError } from '../src/core/types.ts'
import { readDocuments } from '../src/data/index.ts'
import { settingsFromKeys } from '../src/decode/index.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { type TextResult, written } from '../src/text/assemble.ts'
import { createGenerator, type Generator } from '../src/text/generator.ts'
import { documentStyle } from '../src/text/prompt.ts'
import { textOf } from '../src/tokenizer/stream.ts'
import { type Child, startChild } from './child.ts'

/** What of an answer is measured. `forwards` is NaN of a peer. */
export type Written = Pick<TextResult, 'ids' | 'text' | 'tokens' | 'seconds'> & { forwards: number }

/** A model with settings, or a peer on a file. */
export interface Way {
  name: string
  model: string
  isPeer: boolean
  /** Continues the prompts, all of them at the same time. */
  write(prompts: readonly (readonly number[])[]): Promise<Written[]>
}

export interface Ways {
  /** Those of this project, in the order given, then the peers. */
  ways: Way[]
  /** The model of the first way. */
  first: InferenceModel
  /** The files of rows. */
  files: string[]
  close(): Promise<void>
}

/** Flags of benchmarks that compare ways, for parseArgs; `--max-new-tokens` has no default here. */
export const wayFlags = {
  data: { type: 'string' },
  way: { type: 'string', multiple: true, default: [] as string[] },
  peer: { type: 'string', multiple: true, default: [] as string[] },
  threads: { type: 'string', default: String(availableParallelism()) },
} as const

/** Values of `wayFlags`. Ways are NAME=MODEL or NAME=MODEL?setting=value&..., peers NAME=FILE or NAME=FILE?lookup=N. */
export interface WayOptions {
  data?: string | undefined
  way: readonly string[]
  peer: readonly string[]
  threads: string
  'max-new-tokens': string
}

export const PEER_USAGE = `A peer is node-llama-cpp on a GGUF file (scripts/to_gguf.py writes one), from the folder that NODE_LLAMA_CPP names, with or without
its InputLookupTokenPredictor (LOOKUP: the most tokens it drafts at a time). It decodes greedily, one token a forward.`

/** Loads the models and starts the peers. Throws UserError where there is no way, or nothing to write. */
export async function openWays(options: WayOptions): Promise<Ways> {
  const { data, way, peer } = options
  if (!data || way.length === 0)
    throw new UserError('name the rows or prompts (--data) and at least one way to continue them (--way)')
  const [threads, maxNewTokens] = [Number(options.threads), Number(options['max-new-tokens'])]
  const executor = createExecutor({ threads })
  const children = new Map<string, Child>()
  const opened = new Map<string, { loaded: InferenceModel; generator: Generator }>()
  const close = async () => {
    for (const { generator } of opened.values()) await generator.dispose()
    for (const child of children.values()) await child.close()
    await executor.dispose()
  }
  try {
    const ways: Way[] = []
    for (const text of way) {
      const { name, model, query } = parseNamed(text)
      const settings = settingsOf(query)
      if (!opened.has(model)) {
        const loaded = await loadForInference(model)
        opened.set(model, { loaded, generator: await createGenerator(executor, loaded) })
      }
      const { generator } = opened.get(model)!
      const write: Way['write'] = (prompts) =>
        Promise.all(prompts.map((ids) => written(generator.write(ids, { maxNewTokens, ...settings }))))
      ways.push({ name, model, isPeer: false, write })
    }
    const { loaded: first } = [...opened.values()][0]!
    for (const text of peer) {
      const { name, model, query } = parseNamed(text)
      if (!children.has(model)) children.set(model, await startPeer(model, threads))
      const child = children.get(model)!
      const lookup = query.get('lookup') ?? '0'
      const write: Way['write'] = async (prompts) => {
        const command = `write ${maxNewTokens} ${lookup} ${prompts.map((ids) => ids.join()).join(';')}`
        const answers = await child.ask<{ ids: number[]; seconds: number }[]>(command)
        return answers.map(({ ids, seconds }, i) => {
          const text = textOf(first.tokenizer, ids, { after: [...prompts[i]!] })
          return { ids, text, tokens: ids.length, seconds, forwards: Number.NaN }
        })
      }
      ways.push({ name, model, isPeer: true, write })
    }
    return { ways, first, files: data.split(','), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function startPeer(file: string, threads: number): Promise<Child> {
  if (!process.env.NODE_LLAMA_CPP)
    throw new UserError('--peer: NODE_LLAMA_CPP must name a folder with node-llama-cpp in it')
  const script = fileURLToPath(new URL('./peers/llamacpp.mjs', import.meta.url))
  const child = await startChild(process.execPath, [script, file, String(threads), '0'])
  await child.ask('load')
  return child
}

export function parseNamed(text: string): { name: string; model: string; query: URLSearchParams } {
  const [, name, model, query] = /^([^=]+)=([^?]+)(?:\?(.*))?$/.exec(text) ?? []
  if (!name || !model) throw new UserError(`${text}: expected NAME=MODEL or NAME=MODEL?setting=value&...`)
  return { name, model, query: new URLSearchParams(query) }
}

export function settingsOf(query: URLSearchParams): object {
  const given = [...query].map(([key, value]) => [key, Number.isNaN(Number(value)) ? value : Number(value)])
  return settingsFromKeys(Object.fromEntries(given))
}

export interface Row {
  ids: number[]
  prompt: string
  /** What stands behind the prompt, without the token that ends it. */
  reference: string
}

/**
 * The first `count` rows of a file, each a prompt and a completion. `promptTokens`: of a text without a prompt the first
 * tokens are the prompt; without it such a text is an error.
 */
export async function readRowsOf(
  file: string,
  { tokenizer, model }: InferenceModel,
  { count, promptTokens }: { count: number; promptTokens?: number },
): Promise<Row[]> {
  const rows: Row[] = []
  const options = {
    ...{ paths: [file], tokenizer, seed: 0, split: 'validation' as const, validationFraction: 1 - 2 ** -33 },
    ...{ rows: 1, length: model.dimensions.maxPositions, blockSize: 1, shuffleBuffer: 1 },
    ...documentStyle({ tokenizer, model }, {}),
  }
  for await (const { ids, maskable } of readDocuments(options)) {
    if (rows.length >= count) break
    const first = maskable.indexOf(1) || promptTokens
    if (!first || first < 1) throw new UserError(`${file}: expected rows with a prompt and a completion`)
    const prompt = [...ids.subarray(0, first)]
    const reference = textOf(tokenizer, ids.subarray(first, ids.length - 1), { after: prompt })
    rows.push({ ids: prompt, prompt: textOf(tokenizer, prompt, { after: [] }), reference })
  }
  return rows
}
