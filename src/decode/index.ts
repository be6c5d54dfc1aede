// The decoding layer: an engine that generates tokens, and what goes in and out of it.

export type { Sharing } from './cache.ts'
export { createConstraintCompiler } from './constraints/compiler.ts'
export {
  type CompiledConstraint,
  type Constraint,
  type ConstraintSource,
  compileConstraint,
  compileSource,
  constraintOf,
  createVocabulary,
  type Turn,
  type Turns,
  type Vocabulary,
} from './constraints/index.ts'
export {
  type BlockOptions,
  complete,
  createEngine,
  type Engine,
  type EngineOptions,
  type FillOptions,
  type GenerateOptions,
} from './engine.ts'
export { checkedMode, modelDecoding, unreadSettings } from './model-decoding.ts'
export type { SamplingOptions } from './sampling.ts'
export type { ScoreOptions, TokenScore } from './score.ts'
export {
  checkMode,
  configuredSettings,
  type DecodingMode,
  type DecodingSettings,
  givenSettings,
  resolveSettings,
  type SettingName,
  type SettingRow,
  type StrategyName,
  settingDefault,
  settingNames,
  settingRow,
  settingsFromKeys,
  settingsOfMode,
  settingsToConfig,
  strategyNames,
  strategyReads,
} from './settings.ts'
export type { CommittedToken, DecodeStep, Generation, GenerationResult } from './types.ts'
