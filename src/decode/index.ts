// The decoding layer: an engine that generates tokens, and what goes in and out of it.

export {
  type Constraint,
  type ConstraintSource,
  compileConstraint,
  createVocabulary,
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
export type { SamplingOptions } from './sampling.ts'
export type { ScoreOptions, TokenScore } from './score.ts'
export {
  createStrategy,
  defaultDecoding,
  type StrategyName,
  type StrategyOptions,
  strategyNames,
  strategyReads,
} from './strategies/index.ts'
export type { CommittedToken, DecodeStep, Generation, GenerationResult } from './types.ts'
