// Calibrates confidences: finds the factor on the logits at which the probability of a predicted token says how often it is
// right. Measured on texts whose answers are known, masked as decoding finds them.

import type { InferenceModel } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import { UserError } from '../core/types.ts'
import { createForward } from '../decode/forward.ts'
import { argmax, logProbabilities } from '../decode/sampling.ts'
import type { Executor } from '../runtime/executor.ts'
import { calibrationBins } from './calibration-error.ts'

export interface Calibration {
  /** Factor on the logits of least negative log-likelihood (temperature scaling, Guo et al. 2017, with T = 1 / scale). */
  scale: number
  /** Masked tokens that it was measured on. */
  tokens: number
  /** Nats per token without and with the factor. */
  nll: { raw: number; calibrated: number }
  /** Expected calibration error of the predicted tokens' probabilities, without and with the factor. */
  ece: { raw: number; calibrated: number }
}

/** 0.25 to 4, in steps of about 3.5 %. */
const SCALES = Array.from({ length: 81 }, (_, i) => 2 ** (i / 20 - 2))

/**
 * Measures on texts of which the tokens from `start` on are the answer: one block each, in which every token of the answer is
 * masked with a probability that is drawn for the text. Throws UserError where no text has an answer.
 */
export async function calibrateConfidence(
  executor: Executor,
  { model, parameters }: Pick<InferenceModel, 'model' | 'parameters'>,
  texts: readonly { ids: readonly number[]; start: number }[],
  { blockSize, seed = 0, signal }: { blockSize: number; seed?: number; signal?: AbortSignal },
): Promise<Calibration> {
  const mask = model.config.mask_token_id
  if (typeof mask !== 'number')
    throw new UserError('calibration needs a diffusion model: config.json has no mask_token_id')
  const shift = model.config.same_token_labels === false ? 1 : 0
  const forward = await createForward(executor, model, parameters, [mask])
  const nll = SCALES.map(() => 0)
  const bins = SCALES.map(() => calibrationBins())
  let tokens = 0
  const cache = forward.createCache()
  try {
    for (const [index, { ids, start }] of texts.entries()) {
      const draw = random(seed, 72, index)
      const first = Math.max(start, shift)
      if (first >= ids.length) continue
      const position = first + draw.integer(ids.length - first)
      const end = Math.min(ids.length, (Math.floor(position / blockSize) + 1) * blockSize)
      const ratio = draw.uniform()
      const candidates = Array.from({ length: end }, (_, i) => i).slice(Math.max(first, end - blockSize))
      const masked = candidates.filter((i) => i === position || draw.uniform() < ratio)
      const given = ids.slice(0, end).map((id, i) => (masked.includes(i) ? mask : id))
      const rows = masked.map((i) => i - shift)
      const { logits } = await forward.run(cache, {
        ...{ ids: given, blockSize, rows, store: 0, logits: true },
        signal,
      })
      const width = model.dimensions.vocabSize
      for (const [i, target] of masked.map((at) => ids[at]).entries()) {
        const row = (logits as Float32Array).subarray(i * width, (i + 1) * width)
        row[mask] = Number.NEGATIVE_INFINITY
        const predicted = argmax(row)
        for (const [j, scale] of SCALES.entries()) {
          const logProbability = logProbabilities(row, scale)
          nll[j] -= logProbability(target)
          const confidence = Math.min(1, Math.exp(logProbability(predicted)))
          bins[j].add(confidence, predicted === target)
        }
        tokens++
      }
    }
  } finally {
    await cache.free()
    await forward.dispose()
  }
  if (tokens === 0) throw new UserError('there is nothing to calibrate on: no text has an answer')
  const best = nll.indexOf(Math.min(...nll))
  const raw = SCALES.indexOf(1)
  return {
    scale: SCALES[best],
    tokens,
    nll: { raw: nll[raw] / tokens, calibrated: nll[best] / tokens },
    ece: { raw: bins[raw].error(), calibrated: bins[best].error() },
  }
}
