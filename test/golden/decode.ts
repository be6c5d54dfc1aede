// Replays reference decodings, state by state, through the cached engine.
import { complete, createEngine } from '../../src/decode/index.ts'
import type { Model } from '../../src/models/index.ts'
import type { Executor } from '../../src/runtime/executor.ts'
import type { Parameter } from '../../src/core/types.ts'

export interface DecodeCases {
  block_size: number
  cases: DecodeCase[]
}

interface DecodeCase {
  prompt: number[]
  threshold: number
  steps_per_block: number
  max_new_tokens: number
  logit_scale: number
  /** Prompt and new tokens. */
  output: number[]
  denoise_forwards: number
  /** After each forward: the new tokens up to the end of the current block, masks included. */
  states: number[][]
}

/** For each case how many tokens differ, over all states and the output; a state too many or too few counts whole. */
export async function decodeDifferences(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, Parameter>,
  { block_size: blockSize, cases }: DecodeCases,
  maskTokenId: number,
): Promise<number[]> {
  const engine = await createEngine(executor, model, weights, { maskTokenId, eosTokenIds: [] })
  const differences: number[] = []
  for (const { prompt, threshold, steps_per_block, max_new_tokens, logit_scale, output, states } of cases) {
    const seen: number[][] = []
    const generation = engine.generate(prompt, {
      blockSize,
      strategy: 'threshold',
      bufferSize: 1,
      // Cases that commit one token at a time have thresholds above 1, which no confidence exceeds either.
      threshold: Math.min(1, threshold),
      stepsPerBlock: steps_per_block,
      maxNewTokens: max_new_tokens,
      logitScale: logit_scale,
    })
    const { ids, forwards } = await complete(generation, ({ step, tokens }) => {
      const state = [...(seen[step - 1] ?? [])]
      while (prompt.length + state.length < (tokens[0].block + 1) * blockSize) state.push(maskTokenId)
      for (const { position, token } of tokens) state[position - prompt.length] = token
      seen.push(state)
    })
    let different = Math.abs(forwards - states.length) + countDifferences([...prompt, ...ids], output)
    for (let i = 0; i < Math.max(states.length, seen.length); i++)
      different += countDifferences(seen[i] ?? [], states[i] ?? [])
    differences.push(different)
  }
  await engine.dispose()
  return differences
}

/** Places in which two lists differ, a longer tail included. */
export function countDifferences(a: readonly number[], b: readonly number[]): number {
  let count = 0
  for (let i = 0; i < Math.max(a.length, b.length); i++) if (a[i] !== b[i]) count++
  return count
}
