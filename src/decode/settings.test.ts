// The table of settings, what is derived from it, and how settings come together.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import {
  checkMode,
  checkSettings,
  configuredSettings,
  type DecodingSettings,
  resolveSettings,
  type SettingName,
  type SettingType,
  settingDefault,
  settingKey,
  settingNames,
  settingRow,
  settingsFromKeys,
  settingsToConfig,
  strategyNames,
  strategyReads,
} from './settings.ts'
import { bodyFields, recipeDecodingFields, unmaskFields } from './settings-zod.ts'
import { createStrategy } from './strategies/index.ts'

const valuesOfType = (type: SettingType): fc.Arbitrary<number | string | boolean> => {
  switch (type.kind) {
    case 'boolean':
      return fc.boolean()
    case 'choice':
      return fc.constantFrom(...type.choices)
    case 'whole':
      return fc.integer({ min: type.least, max: Math.min(type.most, 1000) })
    case 'number':
      return fc.double({
        min: type.least ?? type.above!,
        minExcluded: type.above !== undefined,
        max: type.most ?? 1000,
        noNaN: true,
      })
  }
}
const anySettings = fc.record(
  Object.fromEntries(settingNames.map((name) => [name, valuesOfType(settingRow(name).type)])),
  {
    requiredKeys: [],
  },
) as fc.Arbitrary<DecodingSettings>

describe('the table', () => {
  it.each(settingNames)('%s has defaults in its range, a help, and a word for where it is not exposed', (name) => {
    const { type, default: usual, defaultOf = {}, tried = [], help, exposed, strategies = [] } = settingRow(name)
    for (const value of [usual, ...Object.values(defaultOf), ...tried])
      if (value !== undefined) expect(() => checkSettings({ [name]: value })).not.toThrow()
    expect(help).not.toBe('')
    for (const place of Object.values(exposed)) if (typeof place === 'string') expect(place.length).toBeGreaterThan(10)
    for (const strategy of [...strategies, ...Object.keys(defaultOf)]) expect(strategyNames).toContain(strategy)
    if (type.kind === 'number') expect(type.least ?? type.above).toBeDefined()
  })

  it('has no two settings of one name in JSON', () => {
    expect(new Set(settingNames.map(settingKey)).size).toBe(settingNames.length)
  })

  it.each(strategyNames)('has what the strategy %s reads', (name) => {
    const settings = Object.fromEntries(
      settingNames
        .filter((setting) => strategyReads(name, setting))
        .map((setting) => [setting, settingDefault(setting, name)]),
    )
    expect(createStrategy(name, settings).begin).toBeTypeOf('function')
  })

  it('gives recipes and requests schemas with its ranges', () => {
    for (const fields of [recipeDecodingFields, bodyFields, unmaskFields])
      for (const [key, field] of Object.entries(fields)) {
        const name = settingNames.find((one) => settingKey(one) === key)!
        const { type, default: usual } = settingRow(name)
        if (usual !== undefined) expect(field.safeParse(usual).success, key).toBe(true)
        if (type.kind !== 'choice') expect(field.safeParse('x').success, key).toBe(false)
        if (type.kind === 'whole') expect(field.safeParse(1.5).success, key).toBe(false)
        if (type.kind === 'number') expect(field.safeParse(-1).success, key).toBe(false)
      }
  })
})

describe('checks', () => {
  it.each<[DecodingSettings, string]>([
    [{ threshold: 1.5 }, 'threshold: expected a number from 0 to 1, not 1.5'],
    [{ topP: 0 }, 'topP: expected a number above 0 and at most 1, not 0'],
    [{ factor: 0 }, 'factor: expected a number above 0, not 0'],
    [{ bufferSize: 0 }, 'bufferSize: expected a whole number of at least 1, not 0'],
    [{ strategy: 'fast' as never }, 'strategy: expected one of threshold, fixed'],
    [{ reuse: 1 as never }, 'reuse: expected true or false, not 1'],
  ])('%o: %s', (settings, message) => {
    expect(() => checkSettings(settings)).toThrow(message)
  })

  it('let every value of its type pass, and nothing else than a UserError through', () => {
    fc.assert(
      fc.property(anySettings, fc.constantFrom(...settingNames), fc.anything(), (settings, name, value) => {
        expect(() => checkSettings(settings)).not.toThrow()
        try {
          checkSettings({ [name]: value })
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
        }
      }),
    )
  })

  it('name settings that a way of decoding does not read', () => {
    expect(() => checkMode({ threshold: 0.5, factor: 1 }, 'ar')).toThrow('threshold, factor: only for block decoding')
    expect(() => checkMode({ masks: 2 }, 'diffusion')).toThrow(
      'masks: not read in mode diffusion; it belongs to mode speculative',
    )
    expect(() => checkMode({ temperature: 1, maxNewTokens: 2 }, 'ar')).not.toThrow()
  })
})

describe('settings come from', () => {
  const tuned = { strategy: 'factor', factor: 0.5, buffer_size: 3, block_size: 8, reuse: true }

  it('what is given, else generation_config.json, else the table', () => {
    expect(resolveSettings({})).toMatchObject({
      strategy: 'hierarchy',
      threshold: 0.95,
      lowThreshold: 0.7,
      bufferSize: 2,
    })
    expect(resolveSettings({ threshold: 0.6 })).toMatchObject({ strategy: 'hierarchy', threshold: 0.6 })
    expect(resolveSettings({ bufferSize: 1 }, tuned)).toMatchObject({
      ...{ strategy: 'factor', factor: 0.5, bufferSize: 1, blockSize: 8, reuse: true },
    })
  })

  it('one strategy, not from another', () => {
    const fixed = resolveSettings({ strategy: 'fixed' }, tuned)
    expect(fixed).toMatchObject({ strategy: 'fixed', tokensPerStep: 1, bufferSize: 3, blockSize: 8, reuse: false })
    expect(fixed.factor).toBeUndefined()
  })

  it('the strategy that reads what is given', () => {
    expect(resolveSettings({ stepsPerBlock: 4 }).strategy).toBe('threshold')
    expect(resolveSettings({ editingThreshold: 0.9, threshold: 0.8 }).strategy).toBe('edit')
    expect(resolveSettings({ entropyBound: 0.2 }, tuned).strategy).toBe('entropy_bound')
  })

  it('a buffer of one block where drafts are verified', () => {
    expect(resolveSettings({ selfVerify: 2 }).bufferSize).toBe(1)
    expect(resolveSettings({ selfVerify: 2, bufferSize: 2 }).bufferSize).toBe(2)
    expect(resolveSettings({}, { self_verify: 2 }, { constrained: true }).selfVerify).toBeUndefined()
  })

  it('themselves: what is resolved resolves to itself, and a file gives back what was written', () => {
    fc.assert(
      fc.property(anySettings, fc.constantFrom(...strategyNames), (settings, strategy) => {
        const own = Object.entries({ ...settings, strategy }).filter(
          ([name]) => !settingRow(name as SettingName).strategies || strategyReads(strategy, name as SettingName),
        )
        const resolved = resolveSettings(Object.fromEntries(own))
        expect(resolveSettings(resolved)).toEqual(resolved)
        const written = settingsToConfig(resolved)
        const kept = Object.entries(resolved).filter(
          ([name]) => settingRow(name as SettingName).exposed.generationConfig === true,
        )
        expect(configuredSettings(written)).toEqual(Object.fromEntries(kept))
        expect(settingsFromKeys(written)).toMatchObject(Object.fromEntries(kept))
      }),
    )
  })
})
