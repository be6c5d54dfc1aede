// Strategies with settings of theirs, from the table of settings. Used by tests only.
import fc from 'fast-check'
import {
  type DecodingSettings,
  resolveSettings,
  type SettingType,
  settingNames,
  settingRow,
  strategyNames,
  strategyReads,
} from '../../src/decode/settings.ts'
import { createStrategy } from '../../src/decode/strategies/index.ts'

/** A few values of a type, its bounds among them, small enough that decoding ends soon. */
function valuesOf(type: SettingType): fc.Arbitrary<number | string | boolean> {
  if (type.kind === 'boolean') return fc.boolean()
  if (type.kind === 'choice') return fc.constantFrom(...type.choices)
  const { least = 0, most = 20 } = type
  const values = type.kind === 'whole' ? [least, least + 2, least + 8] : [least, 0.01, 0.2, 0.5, 0.9, 1, 5]
  const above = type.kind === 'number' ? type.above : undefined
  return fc.constantFrom(...values.filter((value) => value >= least && value <= most && value !== above))
}

/** Any strategy that needs no model of its own, with some of the settings that it reads beside the common ones. */
export const anyStrategy: fc.Arbitrary<DecodingSettings> = fc
  .constantFrom(
    ...strategyNames.filter((strategy) => !createStrategy(strategy, resolveSettings({ strategy })).softStates),
  )
  .chain((strategy) => {
    const own = settingNames.filter((name) => settingRow(name).strategies && strategyReads(strategy, name))
    const values = Object.fromEntries(own.map((name) => [name, valuesOf(settingRow(name).type)]))
    return fc.record(values, { requiredKeys: [] }).map((settings) => ({ ...settings, strategy }))
  })
