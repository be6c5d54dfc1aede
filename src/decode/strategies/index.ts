// The decoding strategies by name: adding one is adding its file and a line here.

import { UserError } from '../../types.ts'
import type { Strategy } from '../types.ts'
import { type CreditOptions, credit } from './credit.ts'
import { type EditOptions, edit } from './edit.ts'
import { type EntropyBoundOptions, entropyBound } from './entropy-bound.ts'
import { type FactorOptions, factor } from './factor.ts'
import { type FixedOptions, fixed } from './fixed.ts'
import { type HierarchyOptions, hierarchy } from './hierarchy.ts'
import { soft } from './soft.ts'
import { type ThresholdOptions, threshold } from './threshold.ts'

/** Settings of all strategies; each reads its own. */
export type StrategyOptions = ThresholdOptions &
  FixedOptions &
  HierarchyOptions &
  CreditOptions &
  FactorOptions &
  EntropyBoundOptions &
  EditOptions

interface Entry {
  create(options: StrategyOptions): Strategy
  /** The settings that it reads. */
  options: readonly (keyof StrategyOptions)[]
}

const strategies = {
  threshold: { create: threshold, options: ['threshold', 'stepsPerBlock'] },
  fixed: { create: fixed, options: ['tokensPerStep'] },
  hierarchy: { create: hierarchy, options: ['threshold', 'lowThreshold'] },
  credit: { create: credit, options: ['threshold', 'creditAlpha', 'boostGamma', 'decayBeta'] },
  factor: { create: factor, options: ['factor'] },
  entropy_bound: { create: entropyBound, options: ['entropyBound'] },
  edit: { create: edit, options: ['threshold', 'editingThreshold', 'maxPostSteps'] },
  soft: { create: soft, options: ['threshold', 'editingThreshold', 'maxPostSteps'] },
} as const satisfies Record<string, Entry>

export type StrategyName = keyof typeof strategies
export const strategyNames = Object.keys(strategies) as StrategyName[]

/** Whether a strategy has a setting. */
export const strategyReads = (name: StrategyName | undefined, key: keyof StrategyOptions): boolean =>
  (strategies[name ?? 'threshold'] as Entry).options.includes(key)

/**
 * What is used where nobody says anything: on the front over all strategies on the tiny converted model (docs/decoding.md).
 */
export const defaultDecoding = { strategy: 'hierarchy', threshold: 0.95, lowThreshold: 0.7, bufferSize: 2 } as const

const shares = ['threshold', 'lowThreshold', 'editingThreshold'] as const
const counts = ['stepsPerBlock', 'tokensPerStep'] as const
const notNegative = ['creditAlpha', 'boostGamma', 'decayBeta', 'factor', 'entropyBound', ...shares] as const

/** The strategy of a name. Throws UserError for an unknown name, a setting that it does not read, or one out of range. */
export function createStrategy(name: StrategyName, options: StrategyOptions): Strategy {
  if (!Object.hasOwn(strategies, name))
    throw new UserError(`there is no strategy ${JSON.stringify(name)}; there are ${strategyNames.join(', ')}`)
  const entry: Entry = strategies[name]
  for (const key of Object.keys(options) as (keyof StrategyOptions)[])
    if (options[key] !== undefined && !entry.options.includes(key))
      throw new UserError(`the strategy ${name} has no ${key}; it has ${entry.options.join(', ')}`)
  for (const key of counts)
    checkRange(
      key,
      options[key],
      Number.isSafeInteger(options[key]) && Number(options[key]) >= 1,
      'a whole number of at least 1',
    )
  for (const key of notNegative) checkRange(key, options[key], Number(options[key]) >= 0, '0 or more')
  const { maxPostSteps } = options
  checkRange(
    'maxPostSteps',
    maxPostSteps,
    Number.isSafeInteger(maxPostSteps) && Number(maxPostSteps) >= 0,
    'a whole number of at least 0',
  )
  return entry.create(options)
}

function checkRange(name: string, value: number | undefined, fits: boolean, range: string): void {
  if (value !== undefined && !fits) throw new UserError(`${name} must be ${range}, got ${value}`)
}
