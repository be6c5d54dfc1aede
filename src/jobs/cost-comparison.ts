// How much less one way to a model costs than another, to the same negative ELBO on the same held-out text: from the metrics of
// runs. Measures nothing.
import { join } from 'node:path'
import { exists, readJsonObject } from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { type MetricsRecord, readMetrics } from '../train/metrics.ts'

/** What is compared; of energy only what was measured. */
export const costFigures = ['tokens', 'seconds', 'flops', 'joules'] as const
export type CostFigure = (typeof costFigures)[number]
type Costs = Record<CostFigure, number | undefined>

export interface CostPair {
  run: string
  against: string
  /** NELBO in nats per token that both are asked to reach: the last one of `run`. */
  target: number
  cost: Costs
  /** Of `against` until the target, interpolated between evaluations; undefined where it was not reached. */
  costAgainst: Costs | undefined
  /** Of `against` in all. */
  spentAgainst: Costs
  /** Share of right answers at the end, where the reports have it. */
  score: number | undefined
  scoreAgainst: number | undefined
}

export interface CostComparison {
  pairs: CostPair[]
  /**
   * Mean of the pairs' ratios of cost, and its standard error (undefined of one pair). `atMost`: in some pair the target was not
   * reached, so that its ratio is at most that to all that was spent.
   */
  ratios: Record<CostFigure, { mean: number; stderr: number | undefined; atMost: boolean } | undefined>
}

/** Compares the runs pair by pair, in the order that they are named. Throws UserError where one has no evaluations. */
export async function compareCosts(runs: readonly string[], against: readonly string[]): Promise<CostComparison> {
  if (runs.length !== against.length)
    throw new UserError(`${runs.length} runs against ${against.length}: name as many, one of each seed`)
  const pairs: CostPair[] = []
  for (const [i, run] of runs.entries()) {
    const other = against[i]!
    const [own, others] = [await evaluations(run), await evaluations(other)]
    const last = own.at(-1)!
    const target = last.nelbo!
    pairs.push({
      ...{ run, against: other, target, cost: costsOf(last), costAgainst: costsAt(others, target) },
      ...{ spentAgainst: costsOf(others.at(-1)!), score: await scoreOf(run), scoreAgainst: await scoreOf(other) },
    })
  }
  const ratio = (figure: CostFigure) => {
    const values = pairs.map(({ cost, costAgainst, spentAgainst }) => {
      const [own, other] = [cost[figure], (costAgainst ?? spentAgainst)[figure]]
      return own === undefined || other === undefined || !(other > 0) ? undefined : own / other
    })
    const known = values.filter((value) => value !== undefined)
    if (known.length < pairs.length || known.length === 0) return undefined
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length
    const variance = known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, known.length - 1)
    const stderr = known.length > 1 ? Math.sqrt(variance / known.length) : undefined
    return { mean, stderr, atMost: pairs.some(({ costAgainst }) => costAgainst === undefined) }
  }
  return {
    pairs,
    ratios: { tokens: ratio('tokens'), seconds: ratio('seconds'), flops: ratio('flops'), joules: ratio('joules') },
  }
}

const costsOf = ({ tokens, elapsed_s, flops, energy_j }: MetricsRecord): Costs => ({
  ...{ tokens, seconds: elapsed_s, flops, joules: energy_j },
})

/** The costs when a curve first comes down to `target`, interpolated linearly; undefined where it never does. */
function costsAt(curve: readonly MetricsRecord[], target: number): Costs | undefined {
  const at = curve.findIndex(({ nelbo }) => nelbo! <= target)
  if (at === -1) return undefined
  const after = costsOf(curve[at]!)
  const low = curve[at - 1]
  if (!low) return after
  const before = costsOf(low)
  const share = (low.nelbo! - target) / (low.nelbo! - curve[at]!.nelbo!)
  const between = (figure: CostFigure) => {
    const [a, b] = [before[figure], after[figure]]
    return a === undefined || b === undefined ? undefined : a + share * (b - a)
  }
  return { tokens: between('tokens'), seconds: between('seconds'), flops: between('flops'), joules: between('joules') }
}

async function evaluations(run: string): Promise<MetricsRecord[]> {
  const file = join(run, 'metrics.jsonl')
  if (!(await exists(file))) throw new UserError(`${run}: no metrics.jsonl in it; name the folder of a run`)
  const found = (await readMetrics(file)).filter(({ nelbo }) => nelbo !== undefined)
  if (found.length === 0) throw new UserError(`${file}: holds no evaluation of held-out text`)
  return found
}

/** The score in a run's report: of blocks or drafts, else one token at a time. */
async function scoreOf(run: string): Promise<number | undefined> {
  const file = join(run, 'report', 'report.json')
  if (!(await exists(file))) return undefined
  const { diffusion, ar } = await readJsonObject(file)
  for (const summary of [diffusion, ar])
    if (isRecord(summary) && isRecord(summary.score) && typeof summary.score.accuracy === 'number')
      return summary.score.accuracy
  return undefined
}
