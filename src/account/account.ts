// What a run has spent, and what that costs.
import type { CostSettings } from './settings.ts'

/** What a training run has spent so far, interruptions not counted. */
export interface Spent {
  /** Clean training tokens, each counted once. */
  tokens: number
  /** Floating-point operations of the updates, by `updateFlops`. */
  flops: number
  /** Wall-clock seconds, validation and checkpoints included. */
  seconds: number
  /** Energy in joules as the machine reported it; undefined where it did not, or not all the time. */
  joules: number | undefined
}

export interface Account extends Omit<Spent, 'joules'> {
  joules: number
  /** `measured`: by the processor's counters (RAPL); `estimated`: `cost.watts` over the time. */
  energy: 'measured' | 'estimated'
  /** Price of energy and machine. */
  cost: number
  currency: string
  /** Kilograms of CO2. */
  co2Kg: number
  prices: CostSettings
}

const JOULES_PER_KWH = 3.6e6

/** The account of what was spent, by these prices. */
export function accountOf({ joules, ...spent }: Spent, prices: CostSettings): Account {
  const energy = joules ?? prices.watts * spent.seconds
  const kwh = energy / JOULES_PER_KWH
  return {
    ...spent,
    joules: energy,
    energy: joules === undefined ? 'estimated' : 'measured',
    cost: kwh * prices.price_per_kwh + (spent.seconds / 3600) * prices.price_per_hour,
    currency: prices.currency,
    co2Kg: kwh * prices.co2_per_kwh,
    prices,
  }
}

/** Rows of a table: what was spent, in words. */
export function accountRows({
  tokens,
  flops,
  seconds,
  joules,
  energy,
  cost,
  currency,
  co2Kg,
}: Account): [string, string][] {
  return [
    ['training tokens', Math.round(tokens).toLocaleString('en-US')],
    ['seconds', seconds.toFixed(seconds < 100 ? 1 : 0)],
    ['floating-point operations', flops.toExponential(2)],
    ['energy', `${joules.toPrecision(3)} J, ${energy}`],
    ['price', `${cost.toPrecision(3)} ${currency}`],
    ['CO2', `${co2Kg.toPrecision(3)} kg`],
  ]
}
