// Two runs of the suite side by side: what differs by more than chance, in words. Pure.
import type { Better } from '../../tasks/task.ts'
import { type Difference, holm, pairedComparison } from '../paired.ts'
import type { SuiteRun } from './records.ts'
import { rowScores } from './summary.ts'

export interface Comparison {
  /** Task and condition, or domain. */
  name: string
  metric: string
  /** Points are hundredths of a score. */
  unit: 'points' | 'bits per byte'
  better: Better | 'lower'
  /** In the unit: b less a. */
  result: Difference
  /** p after Holm's correction over all comparisons. */
  corrected: number
  verdict: 'better' | 'worse' | 'no difference shown'
  sentence: string
}

export interface Comparisons {
  comparisons: Comparison[]
  /** What only one of the runs has, or what has other rows. */
  left: string[]
  regressions: number
  /** All of it in a sentence. */
  verdict: string
}

/** How much nearer b is to what is wanted than a. */
function gainOf(better: Comparison['better'], { a, b }: Difference): number {
  if (better === 'half') return Math.abs(a - 50) - Math.abs(b - 50)
  return better === 'higher' ? b - a : a - b
}

const LEVEL = 0.05

type Item = Omit<Comparison, 'corrected' | 'verdict' | 'sentence'>

/**
 * Compares run `b` with run `a`, row by row: main metrics of tasks under each condition that both have, and bits per byte.
 * Worse is what is so at 5 % after Holm's correction, by more than `margin` (points, default 0).
 */
export function compareRuns(a: SuiteRun, b: SuiteRun, { margin = 0, seed = 0 } = {}): Comparisons {
  const left: string[] = []
  const items = [...taskItems(a, b, left, seed), ...domainItems(a, b, left, seed)]
  const corrected = holm(items.map(({ result }) => result.p))
  const comparisons = items.map((item, i): Comparison => {
    const { result, better, unit } = item
    const p = corrected[i] as number
    const gain = gainOf(better, result)
    const isClear = p < LEVEL && Math.abs(result.difference) > (unit === 'points' ? margin : 0)
    const verdict = !isClear ? 'no difference shown' : gain > 0 ? 'better' : 'worse'
    return { ...item, corrected: p, verdict, sentence: sentenceOf(item, p, verdict) }
  })
  const regressions = comparisons.filter(({ verdict }) => verdict === 'worse').length
  const gains = comparisons.filter(({ verdict }) => verdict === 'better').length
  return { comparisons, left, regressions, verdict: overall(comparisons.length, regressions, gains) }
}

function overall(count: number, regressions: number, gains: number): string {
  if (count === 0) return 'There is nothing to compare: the runs share no rows.'
  const of = `of ${count} comparison${count === 1 ? '' : 's'}`
  if (regressions === 0 && gains === 0)
    return count === 1 ? 'No difference is shown.' : `No difference is shown in any ${of}.`
  const parts = [...(regressions > 0 ? [`worse in ${regressions}`] : []), ...(gains > 0 ? [`better in ${gains}`] : [])]
  return `The second is ${parts.join(' and ')} ${of}${regressions + gains < count ? '; in the rest no difference is shown' : ''}.`
}

function taskItems(a: SuiteRun, b: SuiteRun, left: string[], seed: number): Item[] {
  const items: Item[] = []
  for (const first of a.tasks) {
    const second = b.tasks.find(({ name }) => name === first.name)
    if (!second) {
      left.push(`${first.name}: only in the first run`)
      continue
    }
    const metric = first.metrics[0] as string
    if (second.metrics[0] !== metric) {
      left.push(`${first.name}: scored by ${metric} and by ${second.metrics[0]}`)
      continue
    }
    for (const condition of first.conditions) {
      const other = second.conditions.find(({ name }) => name === condition.name)
      // Thresholds are of one model alone.
      if (!other) continue
      const name = condition.name === 'plain' ? first.name : `${first.name}, ${condition.name}`
      const ids = new Set(other.rows.map(({ id }) => id))
      const shared = new Set(condition.rows.map(({ id }) => id).filter((id) => ids.has(id)))
      const alone = condition.rows.length + other.rows.length - 2 * shared.size
      if (alone > 0) left.push(`${name}: ${alone} rows that only one run has`)
      if (shared.size === 0) continue
      const inOrder = (rows: typeof condition.rows) =>
        rows.filter(({ id }) => shared.has(id)).sort((x, y) => (x.id < y.id ? -1 : x.id > y.id ? 1 : 0))
      const values = (of: typeof condition) => rowScores({ ...of, rows: inOrder(of.rows) }, metric)
      const result = pairedComparison(values(condition), values(other), { seed })
      const hundred = (value: number) => 100 * value
      items.push({
        ...{ name, metric, unit: 'points', better: first.better },
        result: {
          ...result,
          ...{ a: hundred(result.a), b: hundred(result.b), difference: hundred(result.difference) },
          ...{ low: hundred(result.low), high: hundred(result.high) },
        },
      })
    }
  }
  for (const { name } of b.tasks)
    if (!a.tasks.some((task) => task.name === name)) left.push(`${name}: only in the second run`)
  return items
}

function domainItems(a: SuiteRun, b: SuiteRun, left: string[], seed: number): Item[] {
  return a.domains.flatMap((first): Item[] => {
    const second = b.domains.find(({ name }) => name === first.name)
    if (!second) {
      left.push(`${first.name}: only in the first run`)
      return []
    }
    const same =
      first.rows.length === second.rows.length && first.rows.every(({ bytes }, i) => bytes === second.rows[i]?.bytes)
    if (!same) {
      left.push(`${first.name}: the texts are cut into other rows, so they cannot be paired`)
      return []
    }
    const nats = (rows: typeof first.rows) => rows.map((row) => row.nats)
    const weights = first.rows.map(({ bytes }) => bytes * Math.LN2)
    const result = pairedComparison(nats(first.rows), nats(second.rows), { weights, seed })
    const metric = first.exact && second.exact ? 'likelihood' : 'likelihood (at most, where it is a bound)'
    return [{ name: first.name, metric, unit: 'bits per byte', better: 'lower', result }]
  })
}

const signed = (value: number, digits: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`

function sentenceOf({ name, metric, unit, result }: Item, p: number, verdict: Comparison['verdict']): string {
  const digits = unit === 'points' ? 1 : 3
  const { difference, low, high, rows, test } = result
  const range = `${signed(low, digits)} to ${signed(high, digits)} at 95 %`
  const values = `${result.a.toFixed(digits)} → ${result.b.toFixed(digits)}`
  return `${name} (${metric}): ${verdict}: ${values}, ${signed(difference, digits)} ${unit} (${range}), p ${p < 0.001 ? '< 0.001' : p.toFixed(3)}, ${test}, ${rows} rows`
}
