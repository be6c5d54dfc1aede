// Schemas of the decoding settings, derived from the table: the section `decode` of a recipe, and the fields of requests.
import * as z from 'zod'
import {
  type DecodingSettings,
  type decodingSettings,
  type SettingKey,
  type SettingName,
  type SettingRow,
  type SettingType,
  settingKey,
  settingNames,
  settingRow,
} from './settings.ts'

/** A value of this type, within narrower limits where they are given. */
function valueSchema(type: SettingType, limits: { least?: number; most?: number } = {}): z.ZodType {
  switch (type.kind) {
    case 'boolean':
      return z.boolean()
    case 'choice':
      return z.enum(type.choices as [string, ...string[]])
    case 'whole':
      return z
        .int()
        .min(limits.least ?? type.least)
        .max(limits.most ?? type.most)
    case 'number': {
      const most = limits.most ?? type.most
      const above = limits.least === undefined ? type.above : undefined
      const bounded = most === undefined ? z.number() : z.number().max(most)
      return above === undefined ? bounded.min(limits.least ?? type.least!) : bounded.gt(above)
    }
  }
}

/** The help of a setting with its default: `... (default: 0.95; edit 0.7)`. */
function settingHelp(row: SettingRow): string {
  const others = Object.entries(row.defaultOf ?? {}).map(([strategy, value]) => `; ${strategy} ${value}`)
  const shown = row.default !== undefined && row.default !== false
  return shown ? `${row.help} (default: ${row.default}${others.join('')})` : row.help
}

const exposedIn = (place: 'recipe' | 'body' | 'unmask'): SettingName[] =>
  settingNames.filter((name) => {
    const { recipe, http } = settingRow(name).exposed
    return place === 'recipe' ? recipe === true : typeof http === 'object' && http.in === place
  })

type Field<V> = z.ZodOptional<z.ZodType<V, V>>
/** Fields with the JSON names of some settings. */
type Fields<N extends SettingName> = { [K in N as SettingKey<K>]: Field<NonNullable<DecodingSettings[K]>> }
type Exposed<E> = { [N in SettingName]: (typeof decodingSettings)[N]['exposed'] extends E ? N : never }[SettingName]

/**
 * The section `decode` of a recipe. A setting that the model's own files may hold stays undefined where the recipe leaves it
 * out; every other one gets its default.
 */
export const recipeDecodingFields = Object.fromEntries(
  exposedIn('recipe').map((name) => {
    const row = settingRow(name)
    const value = valueSchema(row.type)
    const ofModel = row.exposed.generationConfig === true || !row.modes.includes('diffusion')
    const field =
      ofModel || row.default === undefined
        ? value.optional().describe(settingHelp(row))
        : value.default(row.default).describe(row.help)
    return [settingKey(name), field]
  }),
) as unknown as Fields<Exposed<{ recipe: true }>>

const requestFields = (place: 'body' | 'unmask') =>
  Object.fromEntries(
    exposedIn(place).map((name) => {
      const row = settingRow(name)
      const value = valueSchema(row.type, row.exposed.http as { least?: number; most?: number })
      return [settingKey(name), (place === 'body' ? value.nullish() : value.optional()).describe(settingHelp(row))]
    }),
  )

/** Fields of a request's body that OpenAI, or other servers of its API, have; null counts as left out. */
export const bodyFields = requestFields('body') as unknown as {
  [N in Exposed<{ http: { in: 'body' } }> as SettingKey<N>]: z.ZodOptional<
    z.ZodNullable<z.ZodType<DecodingSettings[N]>>
  >
}

/** Fields of the object `unmask` in a request. */
export const unmaskFields = requestFields('unmask') as unknown as Fields<Exposed<{ http: { in: 'unmask' } }>>

/** The settings of a request, by name: from its body and its object `unmask`. */
export function requestSettings(body: object, unmask: object): DecodingSettings {
  const all = { ...body, ...unmask } as Record<string, unknown>
  const names = [...exposedIn('body'), ...exposedIn('unmask')]
  const given = names
    .map((name) => [name, all[settingKey(name)]])
    .filter(([, value]) => value !== undefined && value !== null)
  const settings: DecodingSettings = Object.fromEntries(given)
  if (settings.topK !== undefined && settings.topK <= 0) delete settings.topK
  // 0 is the most probable token alone.
  if (settings.topP === 0) settings.topP = 1e-9
  // Without a temperature nothing is drawn, and what the rest would choose from does not matter.
  if (!settings.temperature) for (const name of ['temperature', 'topK', 'topP', 'minP'] as const) delete settings[name]
  return settings
}
