// How a model decodes where nobody says: what config.json, generation_config.json and an adapter say of it, checked. Knows names
// and ranges, nothing about weights.
import { type ModelConfig, SettingError, UserError } from '../core/types.ts'
import { shownJson } from '../formats/json.ts'
import {
  configuredSettings,
  type DecodingMode,
  type DecodingSettings,
  type SettingName,
  settingKey,
  settingProblem,
  settingRow,
} from './settings.ts'

export interface DescribedModel {
  model: { config: ModelConfig }
  /** generation_config.json. */
  generationConfig?: Readonly<Record<string, unknown>> | undefined
  /** Where that lies, for messages. */
  generationConfigPath?: string | undefined
}

export interface ModelDecoding {
  /** Token of a hole, and of what is not yet decided; undefined for autoregressive models. */
  maskTokenId: number | undefined
  /** Whether the model has masks and sees its text from left to right only (objective hybrid). */
  causalContext: boolean
  /** The modes that a text may ask for, the usual one of such models first. */
  modes: readonly DecodingMode[]
  /** That of generation_config.json, else the first of `modes`. */
  mode: DecodingMode
  /** Tokens of a block, or masks of a draft. */
  blockSize: number
  /** The settings of generation_config.json. */
  settings: DecodingSettings
}

/** `adapter`: how an adapter that drafts was measured. Throws UserError for what makes no sense, with the file and the key. */
export function modelDecoding(described: DescribedModel, adapter?: { masks: number }): ModelDecoding {
  const { mask_token_id: mask, block_size: trained } = described.model.config
  const maskTokenId = typeof mask === 'number' ? mask : undefined
  const causalContext = maskTokenId !== undefined && described.model.config.causal_context === true
  if (adapter && maskTokenId !== undefined)
    throw new UserError('an adapter drafts for an autoregressive model; this one has masks of its own')
  const modes = modesOf({ adapter: adapter !== undefined, masks: maskTokenId !== undefined, causalContext })
  const settings = checkedSettings(described, { modes, causalContext })
  const configured = causalContext ? settings.masks : settings.blockSize
  return {
    maskTokenId,
    causalContext,
    modes,
    mode: settings.mode ?? modes[0]!,
    blockSize: adapter?.masks ?? configured ?? (typeof trained === 'number' ? trained : 32),
    settings,
  }
}

/** The settings of generation_config.json. Throws UserError for one that is wrong, or that such a model does not read. */
function checkedSettings(
  { generationConfig = {}, generationConfigPath = 'generation_config.json' }: DescribedModel,
  ways: Pick<ModelDecoding, 'modes' | 'causalContext'>,
): DecodingSettings {
  const fail = (key: string, problem: string) => new UserError(`${generationConfigPath}: ${key}: ${problem}`)
  const settings = configuredSettings(generationConfig)
  for (const [name, value] of Object.entries(settings) as [SettingName, unknown][]) {
    const problem = settingProblem(name, value) ?? misplaced(name, value, ways)
    if (problem !== undefined) throw fail(settingKey(name), problem)
  }
  for (const [key, now] of Object.entries(replacedKeys))
    if (generationConfig[key] != null)
      throw fail(key, `${now} took its place: remove the key, and run unmask tune --write`)
  const { eos_token_id: ends } = generationConfig
  if (ends != null && ![ends].flat().every(Number.isInteger))
    throw fail('eos_token_id', `expected an id or a list of ids, not ${shownJson(ends)}`)
  return settings
}

/** Keys that earlier versions wrote, and the settings that do their work now. */
const replacedKeys = { draft_threshold: 'row_cost', branch_threshold: 'row_cost' }

/** Throws SettingError for a mode that the model does not have. */
export function checkedMode(mode: DecodingMode, modes: readonly DecodingMode[]): DecodingMode {
  const problem = modeProblem(mode, modes)
  if (problem !== undefined) throw new SettingError('mode', problem)
  return mode
}

/** Why no mode of the model reads some of the settings, by name; empty where it reads all. */
export function unreadSettings(
  settings: DecodingSettings,
  model: DescribedModel['model'],
): Partial<Record<SettingName, string>> {
  const ways = modelDecoding({ model })
  const reasons = Object.entries(settings).map(([name, value]) => [name, misplaced(name as SettingName, value, ways)])
  return Object.fromEntries(reasons.filter(([, reason]) => reason !== undefined))
}

function modesOf(model: { adapter: boolean; masks: boolean; causalContext: boolean }): readonly DecodingMode[] {
  if (model.adapter) return ['speculative', 'ar']
  if (!model.masks) return ['ar', 'speculative']
  return model.causalContext ? ['speculative', 'ar', 'diffusion'] : ['diffusion', 'ar']
}

function modeProblem(mode: DecodingMode, modes: readonly DecodingMode[]): string | undefined {
  if (modes.includes(mode)) return undefined
  const why = mode === 'ar' ? '' : '; a model trained with objective hybrid writes in all three'
  return `${mode} is not one of this model's, which are ${modes.join(', ')}${why}`
}

/** Why a setting of a model's file has nothing to act on. */
function misplaced(
  name: SettingName,
  value: unknown,
  { modes, causalContext }: Pick<ModelDecoding, 'modes' | 'causalContext'>,
): string | undefined {
  if (name === 'mode') return modeProblem(value as DecodingMode, modes)
  if (name === 'masks' && !causalContext)
    return 'only models trained with objective hybrid draft at masks of their own, and this is none: remove the key'
  const read = settingRow(name).modes
  return modes.some((mode) => read.includes(mode))
    ? undefined
    : `belongs to mode ${read.join(', ')}, which this model does not have (${modes.join(', ')}): remove the key`
}
