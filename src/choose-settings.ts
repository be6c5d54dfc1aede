// How an accelerator decodes fastest on this machine: rows of a forward cost time, drafts save forwards, and only a
// measurement says how many pay. It decodes prompts with settings and compares; it knows no model.
import type { Adapter, StridedSettings } from './checkpoint/adapter.ts'
import { complete } from './decode/index.ts'
import { createGenerator, type Generator } from './generate.ts'
import type { InferenceModel } from './load.ts'
import type { Executor } from './runtime/executor.ts'

export interface ChooseOptions {
  executor: Executor
  loaded: InferenceModel
  adapter: Adapter
  prompts: readonly (readonly number[])[]
  maxNewTokens: number
  /** Seconds that one measurement may take about: fewer prompts are decoded where the model is slow. Default 5. */
  seconds?: number
  signal?: AbortSignal
}

export interface Speed {
  tokensPerSecond: number
  tokensPerForward: number
}

export interface Choice {
  settings: StridedSettings
  /** The model alone, one token per forward. */
  base: Speed
  /** With the chosen settings. */
  accelerated: Speed
  /** Prompts that were decoded, and those whose answers are the same tokens with the chosen settings and without. */
  prompts: number
  equal: number
}

const thresholds = [0, 0.1, 0.3, 0.5]
const branchThresholds = [0, 0.05, 0.1, 0.2, 0.5]

/** Measurements of one setting; the fastest counts, as what disturbs only slows. */
const REPEATS = 2

/**
 * Tries numbers of masks, then thresholds, then branch thresholds, each with the best of what came before. Undefined without
 * prompts.
 */
export async function chooseSettings(options: ChooseOptions): Promise<Choice | undefined> {
  const { executor, loaded, adapter, maxNewTokens, seconds = 5, signal } = options
  const [first] = options.prompts
  if (!first) return undefined
  const own: Generator[] = []
  const open = async (...args: Parameters<typeof createGenerator>) => {
    const generator = await createGenerator(...args)
    own.push(generator)
    return generator
  }
  try {
    const alone = await open(executor, loaded, { mode: 'ar' })
    const decode = async (
      generator: Generator,
      prompts: readonly (readonly number[])[],
      candidate: Partial<StridedSettings> = {},
    ) => {
      const settings = { ...candidate, maxNewTokens, ...(signal ? { signal } : {}) }
      const answers: string[] = []
      const total = { tokens: 0, forwards: 0, seconds: 0 }
      for (const prompt of prompts) {
        const result = await complete(generator.generate(prompt, settings))
        for (const key of ['tokens', 'forwards', 'seconds'] as const) total[key] += result[key]
        answers.push(result.ids.join())
      }
      return { ...total, answers }
    }
    const fastest = async (run: () => ReturnType<typeof decode>) => {
      let best = await run()
      for (let i = 1; i < REPEATS; i++) {
        const again = await run()
        if (again.seconds < best.seconds) best = again
      }
      return best
    }
    await decode(alone, [first])
    const one = await decode(alone, [first])
    const affordable = Math.max(2, Math.floor(seconds / one.seconds))
    const prompts = options.prompts.slice(0, affordable)
    const base = await fastest(() => decode(alone, prompts))

    let chosen = adapter.config.decoding
    let best: Awaited<ReturnType<typeof decode>> | undefined
    const attempt = async (candidate: StridedSettings) => {
      const measured = await fastest(() => decode(drafting, prompts, candidate))
      if (!best || measured.tokens / measured.seconds > best.tokens / best.seconds) {
        best = measured
        chosen = candidate
      }
    }
    const drafting = await open(executor, loaded, { adapter })
    await decode(drafting, [first])
    for (const masks of maskCounts(adapter.config.blockSize)) await attempt({ ...chosen, masks })
    for (const threshold of thresholds) await attempt({ ...chosen, threshold })
    for (const branchThreshold of branchThresholds) await attempt({ ...chosen, branchThreshold })
    const { answers } = best as NonNullable<typeof best>
    return {
      settings: chosen,
      base: speed(base),
      accelerated: speed(best as NonNullable<typeof best>),
      prompts: prompts.length,
      equal: answers.filter((answer, i) => answer === base.answers[i]).length,
    }
  } finally {
    for (const generator of own) await generator.dispose()
  }
}

/** 1, 2, 3, 4, 6, 8, 12 ... and all. */
function maskCounts(most: number): number[] {
  const counts = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48].filter((count) => count < most)
  return [...counts, most]
}

const speed = ({ tokens, forwards, seconds }: { tokens: number; forwards: number; seconds: number }): Speed => ({
  tokensPerSecond: tokens / seconds,
  tokensPerForward: tokens / forwards,
})
