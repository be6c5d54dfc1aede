// The table of decoding settings: name, range, default, help, who reads a setting and where it can be given. The recipe's
// section, command-line flags, fields of the HTTP API, keys of generation_config.json, the check of ranges and modes, and the
// playground's form are derived from it. Plain data: no schema library, so that browsers can import it.
import { SettingError } from '../core/types.ts'
import { shownJson } from '../formats/json.ts'
import { LONGEST_WINDOW } from './lookup.ts'

/** How a generator decodes: in blocks, one token after the other, or with drafts that are verified (see speculative.ts). */
export const decodingModes = ['diffusion', 'ar', 'speculative'] as const
export type DecodingMode = (typeof decodingModes)[number]

/** What a value may be. `least` and `most` are allowed themselves; `above` is not. */
export type SettingType =
  | { kind: 'number'; least?: number; above?: number; most?: number }
  | { kind: 'whole'; least: number; most: number }
  | { kind: 'boolean' }
  | { kind: 'choice'; choices: readonly string[] }

/** Where a setting can be given; a text instead of `true` says why it cannot. */
interface Exposure {
  /** The section `decode` of a recipe, and the flags derived from it. */
  recipe: true | string
  /** A field of requests: in the body, as OpenAI or others have it, or in the object `unmask`. Limits narrower than `type`. */
  http: { in: 'body' | 'unmask'; least?: number; most?: number } | string
  /** A key of generation_config.json. */
  generationConfig: true | string
  /** A field of the playground's form, by its label. */
  playground: { label: string } | string
}

export interface SettingRow {
  type: SettingType
  /** Used where nobody gives the setting. Without it the setting is off. */
  default?: number | string | boolean
  /** Other defaults, by strategy. */
  defaultOf?: Readonly<Record<string, number | string | boolean>>
  help: string
  modes: readonly DecodingMode[]
  /** The strategies that read it. Default: it does not depend on the strategy. */
  strategies?: readonly string[]
  /** Values that `unmask tune` tries. */
  tried?: readonly number[]
  /** Name in JSON and YAML, where it is not the name in snake case. */
  key?: string
  exposed: Exposure
}

const MOST = Number.MAX_SAFE_INTEGER
const share = { kind: 'number', least: 0, most: 1 } as const
const positive = { kind: 'number', above: 0 } as const
const notNegative = { kind: 'number', least: 0 } as const
const count = { kind: 'whole', least: 1, most: MOST } as const
const countOrNone = { kind: 'whole', least: 0, most: MOST } as const

const every = decodingModes
const blocks = ['diffusion'] as const
const perRequest = 'depends on the request, not on the model'
const notAsked = 'the form has the settings that people change most'

/** The decoding strategies; `strategies/index.ts` has an implementation of each. */
export const strategyNames = [
  'threshold',
  'fixed',
  'hierarchy',
  'credit',
  'factor',
  'entropy_bound',
  'edit',
  'soft',
] as const
export type StrategyName = (typeof strategyNames)[number]

interface Limits {
  least?: number
  most?: number
}
const everywhere = (label: string, limits: Limits = {}) =>
  ({ recipe: true, http: { in: 'unmask', ...limits }, generationConfig: true, playground: { label } }) as const
const sampling = (label: string | undefined, limits: Limits = {}) =>
  ({
    recipe: true,
    http: { in: 'body', ...limits },
    generationConfig: perRequest,
    playground: label === undefined ? notAsked : { label },
  }) as const

const measured = "chosen by measurement and kept in the adapter's config"
const ofAdapter = { recipe: measured, http: measured, generationConfig: measured, playground: notAsked } as const

export const decodingSettings = {
  maxNewTokens: {
    type: count,
    default: 128,
    help: 'most tokens generated after the prompt',
    modes: every,
    exposed: {
      recipe: true,
      http: 'each route has its own name for it: max_tokens, max_completion_tokens, max_output_tokens',
      generationConfig: perRequest,
      playground: { label: 'Longest answer' },
    },
  },
  mode: {
    type: { kind: 'choice', choices: decodingModes },
    help: 'ar: one token per forward; speculative: drafts that the model verifies, the text of ar in fewer forwards; diffusion: tokens are committed once they are sure enough (default: speculative after objective hybrid and with an adapter, diffusion after objective diffusion, else ar)',
    modes: every,
    exposed: {
      recipe: 'reports compare the modes; generate and serve have --mode',
      http: { in: 'unmask' },
      generationConfig: true,
      playground: { label: 'Mode' },
    },
  },
  blockSize: {
    type: count,
    help: "positions that are decoded together (default: the model's)",
    modes: blocks,
    exposed: {
      recipe: 'the section diffusion has it; generate and eval have --block-size',
      http: { in: 'unmask', most: 128 },
      generationConfig: true,
      playground: { label: 'Block size' },
    },
  },
  strategy: {
    type: { kind: 'choice', choices: strategyNames },
    default: 'hierarchy',
    help: 'rule that decides which tokens a forward commits; edit is for models trained to correct tokens (LLaDA2.1), soft for those of on-policy uniform training (DMax)',
    modes: blocks,
    exposed: everywhere('Strategy'),
  },
  threshold: {
    type: share,
    default: 0.95,
    defaultOf: { edit: 0.7, soft: 0.5 },
    help: 'commit tokens whose probability is above this; mode speculative: take drafts unverified while they are together more probable than this (default there: 1, verify all)',
    modes: ['diffusion', 'speculative'],
    strategies: ['threshold', 'hierarchy', 'credit', 'edit', 'soft'],
    tried: [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99],
    exposed: everywhere('Threshold'),
  },
  stepsPerBlock: {
    type: count,
    help: 'strategy threshold: most denoising steps per block (default: one per token)',
    modes: blocks,
    strategies: ['threshold'],
    exposed: everywhere('Steps per block', { most: 4096 }),
  },
  tokensPerStep: {
    type: count,
    default: 1,
    help: 'strategy fixed: tokens that each forward commits',
    modes: blocks,
    strategies: ['fixed'],
    tried: [1, 2, 4],
    exposed: everywhere('Tokens per step', { most: 4096 }),
  },
  lowThreshold: {
    type: share,
    default: 0.7,
    help: 'strategy hierarchy: threshold for the most probable token of each run of masks',
    modes: blocks,
    strategies: ['hierarchy'],
    exposed: everywhere('Lower threshold'),
  },
  creditAlpha: {
    type: notNegative,
    default: 0.7,
    help: "strategy credit: weight of a token's credit in its score",
    modes: blocks,
    strategies: ['credit'],
    exposed: everywhere('Weight of credit', { most: 1e6 }),
  },
  boostGamma: {
    type: notNegative,
    default: 0.2,
    help: 'strategy credit: power to which a probability is raised before it is added to the credit',
    modes: blocks,
    strategies: ['credit'],
    exposed: everywhere('Boost of credit', { most: 1e6 }),
  },
  decayBeta: {
    type: notNegative,
    default: 0.8,
    help: 'strategy credit: factor by which credit shrinks each step',
    modes: blocks,
    strategies: ['credit'],
    exposed: everywhere('Decay of credit', { most: 1e6 }),
  },
  factor: {
    type: positive,
    default: 1,
    help: 'strategy factor: commit n tokens while (n + 1) (1 - probability) is below this',
    modes: blocks,
    strategies: ['factor'],
    tried: [0.05, 0.1, 0.25, 0.5, 1, 2],
    exposed: everywhere('Factor', { most: 1e6 }),
  },
  entropyBound: {
    type: positive,
    default: 0.1,
    help: 'strategy entropy_bound: bound on the summed entropy of what a forward commits, in nats',
    modes: blocks,
    strategies: ['entropy_bound'],
    tried: [0.01, 0.03, 0.1, 0.3, 1],
    exposed: everywhere('Entropy bound', { most: 1e6 }),
  },
  editingThreshold: {
    type: share,
    default: 0.5,
    help: 'strategy edit: replace a token when the probability of another is above this',
    modes: blocks,
    strategies: ['edit'],
    exposed: everywhere('Editing threshold'),
  },
  maxPostSteps: {
    type: countOrNone,
    default: 16,
    help: 'strategy edit: most further steps of a block without masks',
    modes: blocks,
    strategies: ['edit'],
    exposed: everywhere('Steps after the last mask', { most: 1024 }),
  },
  bufferSize: {
    type: count,
    default: 2,
    defaultOf: { soft: 1 },
    help: 'neighbouring blocks that are refined at the same time',
    modes: blocks,
    // Each row of a forward has the memory of a vocabulary, so the server bounds block size times buffer.
    exposed: everywhere('Buffer', { most: 4 }),
  },
  activation: {
    type: share,
    default: 0.5,
    help: 'share of a block that is filled before the next block joins the buffer',
    modes: blocks,
    exposed: everywhere('Share before the next block'),
  },
  reuse: {
    type: { kind: 'boolean' },
    default: false,
    help: 'keep keys and values of committed tokens within a block: faster forwards, at some cost in quality',
    modes: blocks,
    exposed: { recipe: true, http: { in: 'unmask' }, generationConfig: true, playground: notAsked },
  },
  selfVerify: {
    type: notNegative,
    help: 'verify a draft at block size 1 when at least this many of its tokens are expected to be accepted',
    modes: blocks,
    exposed: { recipe: true, http: { in: 'unmask', most: 1e6 }, generationConfig: true, playground: notAsked },
  },
  logitScale: {
    type: positive,
    default: 1,
    help: 'factor on the logits from which probabilities are computed; unmask tune --calibrate finds it',
    modes: every,
    key: 'confidence_scale',
    exposed: {
      recipe: true,
      http: 'belongs to the model: calibrated once, not chosen per request',
      generationConfig: true,
      playground: notAsked,
    },
  },
  masks: {
    type: count,
    help: "most tokens drafted at a time (default: as the adapter was measured, or the masks of the model's training)",
    modes: ['speculative'],
    exposed: { ...ofAdapter, recipe: true, generationConfig: true },
  },
  lookup: {
    type: { kind: 'whole', least: 0, most: LONGEST_WINDOW },
    default: 16,
    help: 'bytes of the text so far that must resemble a passage before for what followed there to be drafted; 0 for no such drafts',
    modes: ['speculative'],
    tried: [0, 16],
    exposed: {
      recipe: true,
      http: { in: 'unmask' },
      generationConfig: true,
      playground: notAsked,
    },
  },
  lookupTokens: {
    type: count,
    default: 8,
    help: 'most tokens that are drafted from earlier text',
    modes: ['speculative'],
    exposed: {
      recipe: true,
      http: { in: 'unmask', most: 64 },
      generationConfig: true,
      playground: notAsked,
    },
  },
  rowCost: {
    type: share,
    default: 0.05,
    help: 'time of one more position in a forward, as a share of a forward of one: drafts and masks that are worth less are left out',
    modes: ['speculative'],
    exposed: { ...ofAdapter, recipe: true, generationConfig: true },
  },
  temperature: {
    type: { kind: 'number', least: 0, most: 100 },
    default: 0,
    help: '0 takes the most probable token; above 0, tokens are drawn',
    modes: every,
    exposed: sampling('Temperature', { most: 2 }),
  },
  topK: {
    type: countOrNone,
    default: 0,
    help: 'draw from this many most probable tokens; 0 for all',
    modes: every,
    // Some clients send -1 for all tokens.
    exposed: sampling(undefined, { least: -1, most: 1_000_000 }),
  },
  topP: {
    type: { kind: 'number', above: 0, most: 1 },
    default: 1,
    help: 'draw from the most probable tokens that have this probability together',
    modes: every,
    exposed: sampling('Top p', { least: 0 }),
  },
  minP: {
    type: share,
    default: 0,
    help: 'draw from tokens with at least this share of the greatest probability',
    modes: every,
    exposed: sampling(undefined),
  },
  repetitionPenalty: {
    type: { kind: 'number', above: 0, most: 100 },
    default: 1,
    help: 'above 1, tokens that the text already has become less probable',
    modes: every,
    exposed: sampling(undefined, { most: 10 }),
  },
  seed: {
    type: { kind: 'whole', least: 0, most: MOST },
    default: 0,
    help: 'seed of the draws',
    modes: every,
    exposed: {
      recipe: 'commands that draw have a flag --seed of their own',
      http: 'any 64-bit integer there, of which each choice makes a seed of its own',
      generationConfig: perRequest,
      playground: { label: 'Seed' },
    },
  },
} as const satisfies Record<string, SettingRow>

export type SettingName = keyof typeof decodingSettings

type ValueOf<T> = T extends { kind: 'boolean' }
  ? boolean
  : T extends { kind: 'choice'; choices: readonly (infer C)[] }
    ? C
    : number

/** Values of the settings, by name; what is left out or undefined has the default. */
export type DecodingSettings = { -readonly [N in SettingName]?: ValueOf<(typeof decodingSettings)[N]['type']> }

/** The settings that some strategy reads. */
export type StrategySetting = {
  [N in SettingName]: (typeof decodingSettings)[N] extends { strategies: readonly string[] } ? N : never
}[SettingName]

/** The settings of all strategies, with defaults filled in; each strategy reads its own. */
export type StrategySettings = {
  [N in Exclude<StrategySetting, 'stepsPerBlock'>]: NonNullable<DecodingSettings[N]>
} & {
  stepsPerBlock: number | undefined
}

type SnakeCase<S extends string> = S extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${SnakeCase<Rest>}`
  : S

/** The name of a setting in JSON and YAML. */
export type SettingKey<N extends SettingName> = (typeof decodingSettings)[N] extends { key: infer K extends string }
  ? K
  : SnakeCase<N>

export const settingNames = Object.keys(decodingSettings) as SettingName[]
export const settingRow = (name: SettingName): SettingRow => decodingSettings[name]

/** For instance `max_new_tokens`. */
export const settingKey = <N extends SettingName>(name: N) =>
  (settingRow(name).key ?? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)) as SettingKey<N>

/** Whether a strategy reads a setting. */
export const strategyReads = (strategy: StrategyName, name: SettingName): boolean =>
  settingRow(name).strategies?.includes(strategy) === true

/** The default of a setting, for a strategy where it depends on that. */
export function settingDefault<N extends SettingName>(name: N, strategy?: StrategyName): SettingDefault<N> {
  const row = settingRow(name)
  return ((strategy && row.defaultOf?.[strategy]) ?? row.default) as SettingDefault<N>
}

type SettingDefault<N extends SettingName> = (typeof decodingSettings)[N] extends { default: unknown }
  ? NonNullable<DecodingSettings[N]>
  : undefined

/** The settings among `values` that are given, without those that are undefined. */
export function givenSettings(values: object): DecodingSettings {
  const all = values as Readonly<Record<string, unknown>>
  return Object.fromEntries(settingNames.filter((name) => all[name] !== undefined).map((name) => [name, all[name]]))
}

/** The settings in a record with JSON names, such as the section `decode` of a recipe; other keys are left alone. */
export function settingsFromKeys(record: object): DecodingSettings {
  const all = record as Readonly<Record<string, unknown>>
  return givenSettings(Object.fromEntries(settingNames.map((name) => [name, all[settingKey(name)]])))
}

/** The settings that a way of decoding reads. */
export const settingsOfMode = (settings: DecodingSettings, mode: DecodingMode): DecodingSettings =>
  Object.fromEntries(Object.entries(settings).filter(([name]) => settingRow(name as SettingName).modes.includes(mode)))

/** What is wrong with a value that is not of its setting's type, or out of its range; undefined where nothing is. */
export function settingProblem(name: SettingName, value: unknown): string | undefined {
  const { type } = settingRow(name)
  return fits(value, type) ? undefined : `expected ${expected(type)}, not ${shownJson(value)}`
}

/** Throws UserError for a value that is not of its setting's type, or out of its range. */
export function checkSettings(values: DecodingSettings): void {
  for (const name of settingNames) {
    const problem = values[name] === undefined ? undefined : settingProblem(name, values[name])
    if (problem !== undefined) throw new SettingError(name, problem)
  }
}

function fits(value: unknown, type: SettingType): boolean {
  if (type.kind === 'boolean') return typeof value === 'boolean'
  if (type.kind === 'choice') return typeof value === 'string' && type.choices.includes(value)
  if (typeof value !== 'number' || Number.isNaN(value)) return false
  if (type.kind === 'whole') return Number.isSafeInteger(value) && value >= type.least && value <= type.most
  const { least = Number.NEGATIVE_INFINITY, above = Number.NEGATIVE_INFINITY, most = Number.POSITIVE_INFINITY } = type
  return value >= least && (value > above || type.above === undefined) && value <= most
}

function expected(type: SettingType): string {
  switch (type.kind) {
    case 'boolean':
      return 'true or false'
    case 'choice':
      return `one of ${type.choices.join(', ')}`
    case 'whole':
      return type.most === MOST
        ? `a whole number of at least ${type.least}`
        : `a whole number from ${type.least} to ${type.most}`
    case 'number': {
      const { least, above, most } = type
      const low = above === undefined ? `of at least ${least}` : `above ${above}`
      if (most === undefined) return `a number ${low}`
      return above === undefined ? `a number from ${least} to ${most}` : `a number above ${above} and at most ${most}`
    }
  }
}

/** Throws UserError for a setting that this way of decoding does not read. */
export function checkMode(values: DecodingSettings, mode: DecodingMode): void {
  const [first, ...others] = settingNames.filter(
    (name) => values[name] !== undefined && !settingRow(name).modes.includes(mode),
  )
  if (first === undefined) return
  const needed = settingRow(first).modes.includes('diffusion')
    ? 'only for block decoding; this model decodes autoregressively'
    : `not read in mode ${mode}; it belongs to mode ${settingRow(first).modes.join(', ')}`
  throw new SettingError([first, ...others], needed)
}

/** Settings in a generation_config.json; `modelDecoding` checks their values. */
export const configuredSettings = (config: Readonly<Record<string, unknown>>): DecodingSettings =>
  Object.fromEntries(
    configured
      .map((name) => [name, config[settingKey(name)]])
      .filter(([, value]) => value !== undefined && value !== null),
  )

/** The other way round, for a file: null for what is not set, so that nothing of earlier settings stays. */
export const settingsToConfig = (settings: DecodingSettings): Record<string, unknown> =>
  Object.fromEntries(configured.map((name) => [settingKey(name), settings[name] ?? null]))

const configured = settingNames.filter((name) => settingRow(name).exposed.generationConfig === true)

/**
 * What block decoding uses: what is given, else what the model's generation_config.json says, else the defaults of the table.
 * A strategy that is given, or that a given setting implies, does not take the settings of the configured one.
 */
export function resolveSettings(
  values: DecodingSettings,
  config: Readonly<Record<string, unknown>> = {},
  { constrained = false }: { constrained?: boolean } = {},
): DecodingSettings & StrategySettings & { strategy: StrategyName } {
  const given = givenSettings(values)
  const fromConfig = configuredSettings(config)
  // Self-verification takes what the model would write without a constraint.
  if (constrained) delete fromConfig.selfVerify
  const usual = fromConfig.strategy ?? settingDefault('strategy')
  const own = settingNames.filter((name) => given[name] !== undefined && settingRow(name).strategies !== undefined)
  const strategy =
    given.strategy ?? [usual, ...strategyNames].find((one) => own.every((name) => strategyReads(one, name))) ?? usual
  const same = strategy === usual
  for (const name of settingNames) {
    if (given[name] !== undefined || fromConfig[name] === undefined) continue
    const ofStrategy = settingRow(name).strategies !== undefined || name === 'reuse' || name === 'selfVerify'
    if (!same && ofStrategy) delete fromConfig[name]
  }
  const resolved: DecodingSettings = { ...fromConfig, ...given, strategy }
  // Self-verification works on one block at a time: it goes without a buffer, unless somebody asks for both.
  if (resolved.selfVerify !== undefined && given.bufferSize === undefined) resolved.bufferSize = 1
  for (const name of settingNames) {
    const { modes, strategies } = settingRow(name)
    const value = settingDefault(name, strategy)
    const read = modes.includes('diffusion') && (strategies === undefined || strategyReads(strategy, name))
    if (read && resolved[name] === undefined && value !== undefined) Object.assign(resolved, { [name]: value })
  }
  // Without a buffer no block waits for another.
  if (resolved.bufferSize === 1 && given.activation === undefined) delete resolved.activation
  return resolved as ReturnType<typeof resolveSettings>
}
