// The library: convert a model, load it, generate with it, measure it. Each name is documented where it is defined.

export { type AccelerateEvent, type AccelerateOptions, type AccelerateResult, accelerate } from './accelerate.ts'
export { type AugmentOptions, type AugmentResult, augment } from './augment.ts'
export type { Adapter } from './checkpoint/adapter.ts'
export { type Checkpoint, inspectCheckpoint, openCheckpoint, pull, saveCheckpoint } from './checkpoint/index.ts'
export { type ConvertEvent, type ConvertOptions, type ConvertResult, convert } from './convert.ts'
export type { CommittedToken, ConstraintSource, Generation, GenerationResult } from './decode/index.ts'
export { type EvaluateOptions, type EvaluateResult, evaluate } from './evaluate.ts'
export { type ExportModelOptions, type ExportModelResult, exportModel } from './export.ts'
export {
  type InferenceModel,
  type LoadedModel,
  type LoadOptions,
  load,
  loadAdapterFor,
  loadForInference,
} from './load.ts'
export { type QuantizeEvent, type QuantizeOptions, type QuantizeResult, quantize } from './quantize.ts'
export { type QuickstartOptions, quickstart, tinyModel } from './quickstart.ts'
export {
  type AcceleratorRecipe,
  type AcceleratorRecipeInput,
  parseRecipe,
  type Recipe,
  type RecipeInput,
} from './recipe.ts'
export type { Executor } from './runtime/executor.ts'
export { createExecutor } from './runtime/onnxruntime/executor.ts'
export type { TextEvent, TextResult, Writing } from './text/assemble.ts'
export { createGenerator, type GenerateSettings, type Generator } from './text/generator.ts'
export {
  type GenerateOptions,
  generate,
  type OpenModel,
  type OpenOptions,
  openModel,
  type WriteSettings,
} from './text/model.ts'
export { type PromptStyle, promptIds } from './text/prompt.ts'
export type { ChatMessage, Tokenizer } from './tokenizer/types.ts'
export { mergeCheckpoints } from './train/merge.ts'
export { type InferenceParameter, type Parameter, type QuantizedParameter, UserError } from './types.ts'
