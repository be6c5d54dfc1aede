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
} from './decoding.ts'
import type { DecodingSummary, Sample, SweepPoint, TaskComparison } from './report/types.ts'

export interface CompareOptions {
  prompts: readonly Prompt[]
  /** The base; undefined where there is none, as with random weights. */
  ar?: Decode
  /** The converted model one token at a time, where it can: what its drafts are checked against. */
  own?: Decode
  /** The converted model at a confidence threshold; undefined for a causal model on its own. */
  diffusion?: (threshold: number) => Decode
  /** The threshold of the headline figures. */
  threshold: number
  /** Further thresholds. */
  sweep: readonly number[]
  signal?: AbortSignal
  /** `done` and `total` count the prompts of all decoders. */
  onProgress?: (progress: { label: string; done: number; total: number; output: Output }) => void
}

export interface ComparisonResult {
  ar: DecodingSummary | undefined
  own: DecodingSummary | undefined
  diffusion: DecodingSummary | undefined
  tasks: TaskComparison[]
  /** Of the headline figures. */
  threshold: number
  /** How blocks are decoded; undefined without a diffusion model. */
  strategy?: string
  /** By threshold, ascending; the headline one among them. Empty without a sweep. */
  sweep: SweepPoint[]
  samples: Sample[]
  prompts: number
  /**
   * Prompts whose answers are the same tokens as one token at a time: of the converted model itself where it can, else of
   * the base. Undefined where there is nothing to compare with.
   */
  equal: number | undefined
}

/**
 * What a decoder decodes in a row, at least: prompts, and seconds of the first decoder. What another session leaves behind,
 * threads that spin and caches full of its weights, slows the beginning of a turn; of short turns that would be much.
 */
const TURN = { prompts: 8, seconds: 0.5 }

/** Decodes the prompts in turns, a few at a time with each decoder, so that a machine that gets busy slows all alike. */
export async function compareDecoding(options: CompareOptions): Promise<ComparisonResult> {
  const { prompts, threshold, signal, onProgress } = options
  const ar: Output[] = []
  const own: Output[] = []
  const byThreshold = new Map<number, Output[]>()
  const decoders: { label: string; decode: Decode; outputs: Output[] }[] = []
  if (options.ar) decoders.push({ label: 'AR base', decode: options.ar, outputs: ar })
  if (options.own) decoders.push({ label: 'AR mode', decode: options.own, outputs: own })
  if (options.diffusion) {
    for (const value of new Set([threshold, ...options.sweep])) {
      const outputs: Output[] = []
      byThreshold.set(value, outputs)
      decoders.push({ label: `threshold ${value}`, decode: options.diffusion(value), outputs })
    }
  }
  const total = prompts.length * decoders.length
  let done = 0
  const spent = (outputs: readonly Output[]) => outputs.reduce((sum, { seconds }) => sum + seconds, 0)
  for (let start = 0; start < prompts.length; ) {
    let turn: Prompt[] | undefined
    for (const { label, decode, outputs } of decoders) {
      const onPrompt = (_: number, output: Output) => onProgress?.({ label, done: ++done, total, output })
      const all = turn ?? prompts.slice(start)
      const enough = (made: readonly Output[]) => !turn && made.length >= TURN.prompts && spent(made) >= TURN.seconds
      const made = await decodePrompts(all, decode, { signal, onPrompt, enough })
      outputs.push(...made)
      turn ??= all.slice(0, made.length)
    }
    if (!turn) break
    start += turn.length
  }
  const diffusion = byThreshold.get(threshold) ?? []
  const reference = own.length > 0 ? own : ar
  return {
    ar: ar.length > 0 ? summarize(ar) : undefined,
    own: own.length > 0 ? summarize(own) : undefined,
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
      reference.length === 0 || diffusion.length === 0
        ? undefined
        : reference.filter(({ ids }, i) => ids.join() === diffusion[i]?.ids.join()).length,
  }
}
