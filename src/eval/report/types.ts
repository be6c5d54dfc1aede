// What a report holds: plain JSON, written as report.json and drawn as Markdown and HTML.
// Knows nothing about how the numbers came to be. Every part that was not measured is undefined and left out of the page.
import type { Account } from '../../account/account.ts'
import type { Provenance } from '../../account/provenance.ts'

/** One training step of the loss curve. */
export interface TrainingPoint {
  step: number
  /** Clean training tokens seen after the step. */
  tokens: number
  /** undefined for autoregressive training. */
  blockSize: number | undefined
  /** The objective of the step; nats per token with the ELBO weighting. */
  loss: number
  /** What `loss` is on text and on the padding behind it, where there is any. */
  textLoss?: number
  paddingLoss?: number
  gradNorm: number
  learningRate: number
  tokensPerSecond: number
}

/** One evaluation on held-out text, at the final block size (the exact likelihood for autoregressive training). */
export interface EvaluationPoint {
  step: number
  tokens: number
  /** Block size that training was at; undefined for autoregressive training. */
  blockSize: number | undefined
  /** Nats per token: an upper bound on the negative log-likelihood for diffusion. */
  nelbo: number
  bitsPerByte: number
  /** Standard error of `bitsPerByte` over the draws of the noise; 0 where nothing is drawn. */
  bitsPerByteStderr?: number
}

/** A share of right answers with its 95 % interval. */
export interface ScoreSummary {
  rows: number
  accuracy: number
  low: number
  high: number
}

/** One model decoded in one way. */
export interface DecodingSummary {
  /** undefined where there were no tasks to score. */
  score: ScoreSummary | undefined
  tokens: number
  forwards: number
  tokensPerForward: number
  tokensPerSecond: number
}

export interface ModelSummary extends Partial<DecodingSummary> {
  /** Bits per byte of held-out text; an upper bound for diffusion. */
  bitsPerByte: number | undefined
  /** Nats per token, likewise. */
  nll: number | undefined
  /** Standard errors over the draws of the noise; 0 where nothing is drawn. */
  bitsPerByteStderr?: number
  stderr?: number
}

export interface TaskComparison {
  task: string
  ar: ScoreSummary | undefined
  diffusion: ScoreSummary | undefined
}

export interface SweepPoint extends DecodingSummary {
  /** Confidence above which tokens are committed. */
  threshold: number
}

/** How many training tokens a quality takes, from the base weights and from random ones, in otherwise equal runs. */
export interface TokenEfficiency {
  fromBase: EvaluationPoint[]
  fromRandom: EvaluationPoint[]
  /** NELBO in nats per token that both are asked to reach: the last one of the cheaper run. */
  target: number
  /** Tokens until the target; undefined where a run did not get there. */
  tokensFromBase: number | undefined
  tokensFromRandom: number | undefined
}

export interface Sample {
  task: string | undefined
  prompt: string
  /** The right answer, where there is one. */
  expected: string | undefined
  ar: string | undefined
  diffusion: string | undefined
}

export interface ReportData extends Provenance {
  format: 1
  title: string
  /** One or two sentences: what was done. */
  summary: string
  seed: number
  model: {
    name: string
    architecture: string
    parameters: number
    vocabSize: number
    maskToken: { id: number; token: string } | undefined
  }
  /** The recipe that was run, defaults included. */
  settings: Record<string, unknown>
  training:
    | {
        objective: 'diffusion' | 'ar' | 'hybrid'
        tokens: number
        steps: number
        /** Wall-clock seconds of training, interruptions not counted. */
        seconds: number
        tokensPerSecond: number
        peakMemoryBytes: number | undefined
        /** What it cost; undefined in reports of earlier versions. */
        account?: Account | undefined
        /** True where the run was stopped before its last token. */
        interrupted: boolean
        /** Block sizes in order. */
        schedule: { blockSize: number; tokens: number }[]
        points: TrainingPoint[]
        evaluations: EvaluationPoint[]
      }
    | undefined
  /** The base model decoding one token at a time. */
  ar: ModelSummary | undefined
  /** The converted model one token at a time, where it checks its own drafts that way. */
  own?: ModelSummary | undefined
  /** The converted model at `threshold` and `blockSize`; at threshold 1 it checks all its drafts. */
  diffusion: (ModelSummary & { strategy?: string; threshold: number; blockSize: number }) | undefined
  /** Prompts that both of the converted model's exact modes answered with the same tokens, of how many. */
  equal?: { same: number; prompts: number } | undefined
  tasks: TaskComparison[]
  sweep: SweepPoint[]
  tokenEfficiency: TokenEfficiency | undefined
  samples: Sample[]
}
