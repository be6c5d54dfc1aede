// The decoding layer: an engine that generates tokens, and what goes in and out of it.

export {
  type BlockOptions,
  complete,
  createEngine,
  type Engine,
  type EngineOptions,
  type GenerateOptions,
} from './engine.ts'
export type { CommittedToken, Generation, GenerationResult } from './types.ts'
