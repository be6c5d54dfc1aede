// How an accelerator decodes fastest on this machine: rows of a forward cost time, drafts save forwards, and only a
// measurement says how many pay. It decodes prompts with settings and compares; it knows no model.
import type { Adapter, StridedSettings } from '../checkpoint/adapter.ts'
import type { InferenceModel } from '../checkpoint/load.ts'
import { complete } from '../decode/index.ts'
import type { Executor } from '../runtime/executor.ts'
import { createGenerator, type Generator } from '../text/generator.ts'

export interface ChooseOptions {
  executor: Executor
  loaded: InferenceModel
  adapter: Adapter
  prompts: readonly (readonly number[])[]
  maxNewTokens: number
  /** Seconds that one measurement may take about: fewer and shorter answers where the model is slow. Default 3. */
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

const rowCosts = [0, 0.02, 0.05, 0.1, 0.2]

/** A setting is measured again where it is at most this much slower than the best; the faster time counts, as what disturbs only slows. */
const CLOSE = 1.15

/** Prompts that are decoded at least, and tokens of each. */
const FEWEST_PROMPTS = 2
const FEWEST_TOKENS = 16

/**
 * Tries numbers of masks, then costs of a row, with the best number. Undefined without prompts.
 */
export async function chooseSettings(options: ChooseOptions): Promise<Choice | undefined> {
  const { executor, loaded, adapter, seconds = 3, signal } = options
  const [first] = options.prompts
  if (!first) return undefined
  let { maxNewTokens } = options
  /** What can be done at a rate per second, within limits. */
  const affordable = (rate: number, least: number, most: number) =>
    Math.min(most, Math.max(least, Math.floor(seconds * rate)))
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
      const settings = { ...candidate, maxNewTokens, signal }
      const answers: string[] = []
      const total = { tokens: 0, forwards: 0, seconds: 0 }
      for (const prompt of prompts) {
        const result = await complete(generator.generate(prompt, settings))
        for (const key of ['tokens', 'forwards', 'seconds'] as const) total[key] += result[key]
        answers.push(result.ids.join())
      }
      return { ...total, answers }
    }
    await decode(alone, [first])
    const one = await decode(alone, [first])
    maxNewTokens = affordable(one.tokens / one.seconds / FEWEST_PROMPTS, FEWEST_TOKENS, maxNewTokens)
    const prompts = options.prompts.slice(0, affordable(1 / one.seconds, FEWEST_PROMPTS, options.prompts.length))
    const again = await decode(alone, prompts)
    const base = faster(again, await decode(alone, prompts))

    let chosen = adapter.config.decoding
    let best: Awaited<ReturnType<typeof decode>> | undefined
    const attempt = async (candidate: StridedSettings) => {
      let measured = await decode(drafting, prompts, candidate)
      if (!best || measured.seconds / measured.tokens < (CLOSE * best.seconds) / best.tokens)
        measured = faster(measured, await decode(drafting, prompts, candidate))
      if (!best || measured.tokens / measured.seconds > best.tokens / best.seconds) {
        best = measured
        chosen = candidate
      }
    }
    const drafting = await open(executor, loaded, { adapter })
    await decode(drafting, [first])
    for (const masks of maskCounts(adapter.config.blockSize)) await attempt({ ...chosen, masks })
    for (const rowCost of rowCosts) await attempt({ ...chosen, rowCost })
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

const faster = <T extends { seconds: number }>(a: T, b: T): T => (b.seconds < a.seconds ? b : a)

const speed = ({ tokens, forwards, seconds }: { tokens: number; forwards: number; seconds: number }): Speed => ({
  tokensPerSecond: tokens / seconds,
  tokensPerForward: tokens / forwards,
})
