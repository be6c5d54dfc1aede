// Compares a GGUF model with a folder of reference results for it: token ids, chat prompts, log-probabilities and greedy
// continuations in float32. The model file is not part of the folder.
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { openCheckpoint } from '../../src/checkpoint/index.ts'
import { complete, createEngine } from '../../src/decode/index.ts'
import { createModel } from '../../src/models/index.ts'
import { createExecutor } from '../../src/runtime/onnxruntime/executor.ts'
import { type ChatMessage, loadTokenizer } from '../../src/tokenizer/index.ts'
import type { Parameter } from '../../src/core/types.ts'
import type { CaseResult } from './check.ts'
import { countDifferences } from './decode.ts'
import { logits } from './logits.ts'

/** Token id and log-probability. */
type Top = [id: number, logProbability: number][]

interface Cases {
  prompts: {
    text: string
    ids: number[]
    causal_top5_logprobs: Top[]
    causal_mean_nll: number
    greedy_32: number[]
    greedy_text: string
    bidirectional_last_top5: Top
  }[]
  tokenizer: { text: string; ids: number[]; decoded: string }[]
  chat: { messages: ChatMessage[]; prompt: string }[]
}

const LOG_PROBABILITY = 2e-3

/** Runs every case of `folder` on the model in `file`. */
export async function checkGguf(folder: string, file: string): Promise<CaseResult[]> {
  const cases = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as Cases
  const results: CaseResult[] = []
  const report = (label: string, error: number, tolerance: number) =>
    results.push({ folder: basename(folder), case: label, error, tolerance, pass: error <= tolerance })

  const checkpoint = await openCheckpoint(file)
  const model = createModel(checkpoint.config)
  const tokenizer = loadTokenizer(await checkpoint.tokenizerFiles())
  const weights = new Map<string, Parameter>()
  for (const [name, shape] of model.parameters) weights.set(name, { shape, data: await checkpoint.read(name) })
  await checkpoint.close()

  const total = (errors: number[]) => errors.reduce((a, b) => a + b, 0)
  const allTexts = [...cases.tokenizer, ...cases.prompts]
  report('tokenizer.ids (ids that differ)', total(allTexts.map((c) => countDifferences(tokenizer.encode(c.text), c.ids))), 0)
  const decoded = cases.tokenizer.map((c) => Number(tokenizer.decode(c.ids) !== c.decoded))
  report('tokenizer.decoded (texts that differ)', total(decoded), 0)
  const rendered = cases.chat.map((c) =>
    Number(tokenizer.applyChatTemplate(c.messages, { addGenerationPrompt: true }) !== c.prompt),
  )
  report('chat (prompts that differ)', total(rendered), 0)

  const executor = createExecutor()
  try {
    const { vocabSize } = model.dimensions
    const eosTokenIds = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId]
    const engine = await createEngine(executor, model, weights, { eosTokenIds })
    for (const [i, prompt] of cases.prompts.entries()) {
      const { length } = prompt.ids
      const input = { rows: 1, length, ids: prompt.ids, documents: prompt.ids.map(() => 0) }
      const rowsOf = async (mask: 'causal' | 'bidirectional') => {
        const all = await logits(executor, model, weights, mask, input)
        return prompt.ids.map((_, row) => logProbabilities(all.subarray(row * vocabSize, (row + 1) * vocabSize)))
      }
      const causal = await rowsOf('causal')
      const top = prompt.causal_top5_logprobs.map((expected, row) => topError(causal[row], expected))
      report(`prompts.${i}.causal_top5_logprobs`, Math.max(...top), LOG_PROBABILITY)
      const nll = prompt.ids.slice(1).reduce((sum, id, row) => sum - causal[row][id], 0) / (length - 1)
      report(`prompts.${i}.causal_mean_nll`, Math.abs(nll - prompt.causal_mean_nll), LOG_PROBABILITY)
      const bidirectional = (await rowsOf('bidirectional'))[length - 1]
      const bidirectionalError = topError(bidirectional, prompt.bidirectional_last_top5)
      report(`prompts.${i}.bidirectional_last_top5`, bidirectionalError, LOG_PROBABILITY)
      const { ids } = await complete(engine.generateAutoregressive(prompt.ids, { maxNewTokens: 32 }))
      report(`prompts.${i}.greedy_32 (tokens that differ)`, countDifferences(ids, prompt.greedy_32), 0)
      report(`prompts.${i}.greedy_text (texts that differ)`, Number(tokenizer.decode(ids) !== prompt.greedy_text), 0)
    }
  } finally {
    await executor.dispose()
  }
  return results
}

function logProbabilities(row: Float32Array): Float64Array {
  const largest = row.reduce((a, b) => Math.max(a, b))
  const total = largest + Math.log(row.reduce((sum, x) => sum + Math.exp(x - largest), 0))
  return Float64Array.from(row, (x) => x - total)
}

/** Largest error of the log-probabilities, at the expected ids and by rank, so that no better token is missed. */
function topError(actual: Float64Array, expected: Top): number {
  const ranked = Float64Array.from(actual).sort().reverse()
  return Math.max(...expected.map(([id, p], rank) => Math.max(Math.abs(actual[id] - p), Math.abs(ranked[rank] - p))))
}
