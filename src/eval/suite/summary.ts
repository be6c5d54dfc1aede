// Figures from answers: scores with intervals, pass@k, speed, latency, calibration of choices, diversity. Pure.
import { accuracyUnderParallelism, type CurvePoint } from '../aup.ts'
import { calibrationBins } from '../calibration-error.ts'
import { type Diversity, diversity } from '../diversity.ts'
import { ratioOfSums } from '../estimate.ts'
import { percentile } from '../paired.ts'
import { passAtK } from '../pass-at-k.ts'
import { accuracy, throughput } from '../score.ts'
import type { Answer, ConditionRun, DomainRun, TaskRun } from './records.ts'

/** A figure with its 95 % interval. */
export interface Interval {
  value: number
  low: number
  high: number
}

export interface ConditionSummary {
  name: string
  rows: number
  answers: number
  /** By metric, the main one first. */
  scores: { metric: string; score: Interval }[]
  /** pass@k of the main metric where it is 0 or 1, for k of 1, 2, 4, ... up to the answers of a row. */
  passAtK: { k: number; value: number }[]
  /** Undefined where nothing was written. */
  speed:
    | {
        /** All tokens over all seconds, and the mean of the answers' own. */
        aggregate: number
        mean: number
        tokensPerForward: number
        tokens: number
        /** Seconds of an answer, and to its first token. */
        median: number
        p95: number
        first: number
        /** Share of the answers that ended by themselves. */
        ended: number
      }
    | undefined
  diversity: Diversity | undefined
  /** Of choices: how far the probability of the likeliest is from how often it is right. */
  calibration: number | undefined
}

export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

/** The mean score of each row over its answers. */
export const rowScores = ({ rows }: ConditionRun, metric: string): number[] =>
  rows.map(({ answers }) => mean(answers.map(({ scores }) => scores[metric] ?? 0)))

const Z95 = 1.959963984540054

/** Wilson's interval where every value is 0 or 1, else by the standard error over the rows, inside 0 and 1. */
function interval(values: readonly number[]): Interval {
  if (values.every((value) => value === 0 || value === 1)) {
    const { accuracy: value, low, high } = accuracy(values.filter((each) => each === 1).length, values.length)
    return { value, low, high }
  }
  const { value, stderr } = ratioOfSums(
    values,
    values.map(() => 1),
  )
  return { value, low: Math.max(0, value - Z95 * stderr), high: Math.min(1, value + Z95 * stderr) }
}

export function summarise({ metrics }: Pick<TaskRun, 'metrics'>, condition: ConditionRun): ConditionSummary {
  const { name, rows } = condition
  const answers = rows.flatMap((row) => row.answers)
  const main = metrics[0] as string
  const isBinary = answers.every(({ scores }) => scores[main] === 0 || scores[main] === 1)
  const each = Math.min(...rows.map((row) => row.answers.length))
  const ks = isBinary && each > 1 ? [1, 2, 4, 8, 16, 32, 64, 128].filter((k) => k <= each) : []
  const texts = answers.filter(({ tokens }) => tokens !== undefined)
  return {
    ...{ name, rows: rows.length, answers: answers.length },
    scores: metrics.map((metric) => ({ metric, score: interval(rowScores(condition, metric)) })),
    passAtK: ks.map((k) => ({
      k,
      value: mean(
        rows.map((row) =>
          passAtK(row.answers.length, row.answers.filter(({ scores }) => scores[main] === 1).length, k),
        ),
      ),
    })),
    speed: texts.length > 0 ? speed(texts) : undefined,
    diversity: texts.length > 1 ? diversity(texts.map(({ text }) => text)) : undefined,
    calibration: choiceCalibration(answers, main),
  }
}

function speed(answers: readonly Answer[]): NonNullable<ConditionSummary['speed']> {
  const counts = answers.map(({ tokens = 0, forwards = 0, seconds }) => ({ tokens, forwards, seconds }))
  const { tokensPerSecond, tokensPerForward } = throughput(counts)
  const times = answers.map(({ seconds }) => seconds).sort((a, b) => a - b)
  const first = answers.map(({ firstSeconds = Number.NaN }) => firstSeconds).sort((a, b) => a - b)
  return {
    aggregate: tokensPerSecond,
    mean: mean(counts.map(({ tokens, seconds }) => tokens / seconds)),
    tokensPerForward,
    tokens: mean(counts.map(({ tokens }) => tokens)),
    median: percentile(times, 0.5),
    p95: percentile(times, 0.95),
    first: percentile(first, 0.5),
    ended: mean(answers.map(({ stop }) => Number(stop !== 'length'))),
  }
}

/** Probabilities of choices: their likelihoods, divided by the sum of all. Undefined without choices. */
function choiceCalibration(answers: readonly Answer[], metric: string): number | undefined {
  const bins = calibrationBins()
  for (const { logprobs, scores } of answers) {
    if (!logprobs) continue
    const best = Math.max(...logprobs)
    bins.add(1 / logprobs.reduce((sum, each) => sum + Math.exp(each - best), 0), scores[`${metric} by sum`] === 1)
  }
  return bins.count > 0 ? bins.error() : undefined
}

/** The curve of a task over its thresholds, the main metric over tokens per forward. */
export function curve(task: TaskRun): CurvePoint[] {
  const conditions = task.conditions.filter(({ noise }) => noise === undefined)
  return conditions.flatMap((condition): CurvePoint[] => {
    const { scores, speed } = summarise(task, condition)
    return speed ? [{ tpf: speed.tokensPerForward, score: (scores[0] as { score: Interval }).score.value }] : []
  })
}

/** AUP of a curve of at least two points with the best score of all that are compared; undefined without a curve, or where nothing is right. */
export function aupOf(points: readonly CurvePoint[], best: number): number | undefined {
  return points.length > 1 && best > 0 ? accuracyUnderParallelism(points, best) : undefined
}

export interface DomainSummary {
  name: string
  exact: boolean
  /** Bits per byte, and their standard error over the draws of the noise. */
  bitsPerByte: number
  stderr: number
  tokens: number
  bytes: number
  calibration: number | undefined
}

export function summariseDomain({ name, exact, rows, calibration }: DomainRun): DomainSummary {
  const total = (pick: (row: DomainRun['rows'][number]) => number) => rows.reduce((sum, row) => sum + pick(row), 0)
  const bits = total(({ bytes }) => bytes) * Math.LN2
  return {
    ...{ name, exact, tokens: total(({ tokens }) => tokens), bytes: total(({ bytes }) => bytes) },
    bitsPerByte: total(({ nats }) => nats) / bits,
    stderr: Math.sqrt(total(({ stderr }) => stderr ** 2)) / bits,
    calibration: calibration?.error,
  }
}
