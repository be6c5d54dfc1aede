// The generations of this page: numbers for the charts, kept until the page is left.
import type { DecodingMode } from '../src/decode/settings.ts'
import type { ModelInfo, Run } from './api.ts'

export interface Sample {
  model: string
  mode: DecodingMode
  task: string
  tokens: number
  forwards: number
  tokensPerForward: number
  /** To the first token, and in all. */
  firstSeconds: number
  seconds: number
}

/** Undefined for a generation that did not end by itself. */
export function sampleOf(
  { id, mode }: ModelInfo,
  task: string,
  { usage, firstSeconds, seconds }: Run,
): Sample | undefined {
  if (!usage) return undefined
  const { completion_tokens: tokens, forwards, tokens_per_forward: tokensPerForward } = usage
  return {
    ...{ model: id, mode: mode ?? 'diffusion', task, tokens, forwards, tokensPerForward },
    ...{ firstSeconds: firstSeconds ?? seconds, seconds },
  }
}

export const seconds = (value: number): string =>
  value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`

/** What stands under an answer. */
export function summary(sample: Sample): string[] {
  const { task, tokens, forwards, tokensPerForward, seconds: all, firstSeconds } = sample
  const time = `${seconds(all)} (first after ${seconds(firstSeconds)})`
  // How many tokens a text has wrong is no speed.
  if (task === 'repair') return [`${counted(tokens, 'token')} replaced`, counted(forwards, 'forward'), seconds(all)]
  const rates = [
    `${tokensPerForward.toFixed(2)} tokens per forward`,
    `${Math.round(tokens / Math.max(all, 1e-3))} tokens/s`,
  ]
  return [counted(tokens, 'token'), counted(forwards, 'forward'), ...rates, time]
}

/** How a model writes, beside its answers. */
export const modeName = ({ mode, block_size: size }: ModelInfo): string => {
  switch (mode) {
    case undefined:
      return 'not loaded yet'
    case 'ar':
      return 'autoregressive'
    case 'speculative':
      return 'speculative: drafts that are checked'
    case 'diffusion':
      return `diffusion, blocks of ${size}`
  }
}
