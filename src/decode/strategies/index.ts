// The implementations of the decoding strategies: adding one is adding its file, a line here, its name and its settings in
// ../settings.ts.
import { SettingError } from '../../core/types.ts'
import {
  checkSettings,
  type DecodingSettings,
  givenSettings,
  type StrategyName,
  type StrategySettings,
  settingDefault,
  settingNames,
  settingRow,
  strategyNames,
  strategyReads,
} from '../settings.ts'
import type { Strategy } from '../types.ts'
import { credit } from './credit.ts'
import { edit } from './edit.ts'
import { entropyBound } from './entropy-bound.ts'
import { factor } from './factor.ts'
import { fixed } from './fixed.ts'
import { hierarchy } from './hierarchy.ts'
import { soft } from './soft.ts'
import { threshold } from './threshold.ts'

const strategies: Record<StrategyName, (settings: StrategySettings) => Strategy> = {
  threshold,
  fixed,
  hierarchy,
  credit,
  factor,
  entropy_bound: entropyBound,
  edit,
  soft,
}

/**
 * The strategy of a name, with the table's defaults for what is left out. Throws UserError for an unknown name, a setting that
 * the strategy does not read, or one out of range.
 */
export function createStrategy(name: StrategyName, options: DecodingSettings): Strategy {
  if (!Object.hasOwn(strategies, name))
    throw new SettingError('strategy', `there is no ${JSON.stringify(name)}; there are ${strategyNames.join(', ')}`)
  checkSettings(options)
  const known = settingNames.filter((setting) => strategyReads(name, setting))
  for (const setting of Object.keys(givenSettings(options)) as (typeof settingNames)[number][])
    if (settingRow(setting).strategies && !known.includes(setting))
      throw new SettingError(
        setting,
        (nameOf) => `the strategy ${name} does not read it; it reads ${known.map(nameOf).join(', ')}`,
      )
  const settings = Object.fromEntries(
    known.map((setting) => [setting, options[setting] ?? settingDefault(setting, name)]),
  )
  return strategies[name](settings as unknown as StrategySettings)
}
