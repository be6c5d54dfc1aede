// From a forward's rows to predictions: what the graph chose, or, where a request asks for more than the most probable
// token, what is made of the logits. Knows nothing about blocks.

import { SettingError } from '../core/types.ts'
import type { ForwardResult } from './forward.ts'
import {
  adjustLogits,
  argmax,
  distribution,
  draws,
  largest,
  logProbabilities,
  needsLogits,
  pick,
  type SamplingOptions,
  uniformAt,
  withSamplingDefaults,
} from './sampling.ts'
import { settingDefault } from './settings.ts'
import type { CommittedToken, Predictions } from './types.ts'

/** Tokens that a position may hold. */
export interface Allowed {
  /** A bit per token: token t is bit t % 32 of word t / 32. */
  tokens: Uint32Array
  /** All earlier positions have their tokens, so that these are all tokens with which the text can go on. */
  leading: boolean
}

export interface Predictor {
  /** The forward must return its logits. */
  logits: boolean
  /**
   * Predictions for `positions`, one of the result's rows each from row `first`. `step` separates draws for the same
   * position, `present` are the tokens of the text. With `allowed`, only tokens that it allows for the i-th position are
   * predicted. Confidence then is the probability among the allowed tokens where the position leads or there is but one;
   * elsewhere among all, since what may stand between could leave too few tokens to be sure.
   */
  predict(
    result: ForwardResult,
    first: number,
    positions: readonly number[],
    step: number,
    present: () => readonly number[],
    allowed?: (index: number) => Allowed,
  ): Predictions & { details: (index: number, token: number) => Pick<CommittedToken, 'confidence' | 'logprob' | 'top'> }
}

/**
 * Predicts as the options say. `forbidden` are never predicted, `forbiddenAt` not at a position; `logits` asks for them in any
 * case.
 */
export function createPredictor(
  options: SamplingOptions & { logitScale?: number },
  {
    forbidden,
    forbiddenAt,
    logits = false,
  }: { forbidden: readonly number[]; forbiddenAt?: (position: number) => readonly number[]; logits?: boolean },
): Predictor {
  const { logitScale: scale = settingDefault('logitScale'), logprobs } = options
  const { seed, repetitionPenalty } = withSamplingDefaults(options)
  if (!logits && !forbiddenAt && !needsLogits(options))
    return {
      logits: false,
      predict({ tokens, confidence }, first, positions) {
        const end = first + positions.length
        const own = Array.from({ length: positions.length }, (_, i) => confidence[first + i])
        return { tokens: tokens.slice(first, end), confidence: own, details: (i) => ({ confidence: own[i] }) }
      },
    }
  return {
    logits: true,
    predict(result, first, positions, step, present, allowed) {
      const width = (result.logits as Float32Array).length / result.tokens.length
      const all = (result.logits as Float32Array).subarray(first * width, (first + positions.length) * width)
      const rows = positions.map((_, i) => all.subarray(i * width, (i + 1) * width))
      const text = repetitionPenalty === 1 ? [] : present()
      const logProbability = rows.map((row, i) => {
        adjustLogits(row, options, text)
        for (const token of forbidden) row[token] = Number.NEGATIVE_INFINITY
        for (const token of forbiddenAt?.(positions[i]) ?? []) row[token] = Number.NEGATIVE_INFINITY
        if (allowed === undefined) return logProbabilities(row, scale)
        const { tokens, leading } = allowed(i)
        const ofAll = logProbabilities(row, scale)
        const count = restrict(row, tokens)
        if (count === 0)
          throw new SettingError('logitBias', 'forbids all tokens with which the constraint lets the text go on')
        return leading || count === 1 ? logProbabilities(row, scale) : ofAll
      })
      const tokens = rows.map((row, i) =>
        draws(options) ? pick(distribution(row, options), uniformAt(seed, positions[i], step)) : argmax(row),
      )
      const probability = (i: number, token: number) => Math.min(1, Math.exp(logProbability[i](token)))
      return {
        tokens,
        confidence: tokens.map((token, i) => probability(i, token)),
        logits: scale === 1 ? all : all.map((value) => value * scale),
        details: (i, token) => ({
          confidence: probability(i, token),
          ...(logprobs === undefined
            ? {}
            : {
                logprob: Math.min(0, logProbability[i](token)),
                top: largest(rows[i], logprobs)
                  .filter((other) => rows[i][other] > Number.NEGATIVE_INFINITY)
                  .map((other) => ({ token: other, logprob: logProbability[i](other) })),
              }),
        }),
      }
    },
  }
}

/** Makes the tokens that are not allowed impossible; the number of those that are left. */
function restrict(logits: Float32Array, allowed: Uint32Array): number {
  let count = 0
  for (let start = 0, word = 0; start < logits.length; start += 32, word++) {
    const bits = allowed[word]
    const end = Math.min(start + 32, logits.length)
    if (bits === 0) logits.fill(Number.NEGATIVE_INFINITY, start, end)
    else
      for (let token = start; token < end; token++)
        if (((bits >>> (token - start)) & 1) === 0) logits[token] = Number.NEGATIVE_INFINITY
        else if (logits[token] > Number.NEGATIVE_INFINITY) count++
  }
  return count
}
