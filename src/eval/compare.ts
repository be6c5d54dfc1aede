// Decodes the same prompts with a base model, one token at a time, and with its converted model at several thresholds.
// Knows nothing about how either decodes.
import {
  chooseSamples,
  compareTasks,
  type Decode,
  decodePrompts,
  type Output,
  type Prompt,
  summarize,
} from './evaluate.ts'
import type { DecodingSummary, Sample, SweepPoint, TaskComparison } from './report/types.ts'

export interface CompareOptions {
  prompts: readonly Prompt[]
  /** The base; undefined where there is none, as with random weights. */
  ar?: Decode
  /** The converted model at a confidence threshold; undefined for a causal model on its own. */
  diffusion?: (threshold: number) => Decode
  /** The threshold of the headline figures. */
  threshold: number
  /** Further thresholds. */
  sweep: readonly number[]
  signal?: AbortSignal
  onProgress?: (progress: { label: string; done: number; total: number; output: Output }) => void
}

export interface ComparisonResult {
  ar: DecodingSummary | undefined
  diffusion: DecodingSummary | undefined
  tasks: TaskComparison[]
  /** Of the headline figures. */
  threshold: number
  /** By threshold, ascending; the headline one among them. Empty without a sweep. */
  sweep: SweepPoint[]
  samples: Sample[]
  prompts: number
  /** Prompts whose answers are the same tokens with both; undefined where there is one decoder only. */
  equal: number | undefined
}

export async function compareDecoding(options: CompareOptions): Promise<ComparisonResult> {
  const { prompts, threshold, signal, onProgress } = options
  const run = (label: string, decode: Decode): Promise<Output[]> =>
    decodePrompts(prompts, decode, {
      signal,
      onPrompt: (done, output) => onProgress?.({ label, done, total: prompts.length, output }),
    })
  const ar = options.ar ? await run('AR base', options.ar) : []
  const byThreshold = new Map<number, Output[]>()
  if (options.diffusion) {
    for (const value of new Set([threshold, ...options.sweep])) {
      byThreshold.set(value, await run(`threshold ${value}`, options.diffusion(value)))
    }
  }
  const diffusion = byThreshold.get(threshold) ?? []
  return {
    ar: ar.length > 0 ? summarize(ar) : undefined,
    diffusion: diffusion.length > 0 ? summarize(diffusion) : undefined,
    tasks: compareTasks(ar, diffusion),
    threshold,
    sweep:
      options.sweep.length === 0
        ? []
        : [...byThreshold]
            .sort(([a], [b]) => a - b)
            .map(([value, outputs]) => ({ threshold: value, ...summarize(outputs) })),
    samples: chooseSamples(ar, diffusion),
    prompts: prompts.length,
    equal:
      ar.length === 0 || diffusion.length === 0
        ? undefined
        : ar.filter(({ ids }, i) => ids.join() === diffusion[i]?.ids.join()).length,
  }
}
