// The library: convert a model, load it, generate with it, measure it. Each name is documented where it is defined.

export type { Adapter } from './checkpoint/adapter.ts'
export { type Checkpoint, inspectCheckpoint, openCheckpoint, pull, saveCheckpoint } from './checkpoint/index.ts'
export {
  type InferenceModel,
  type LoadedModel,
  type LoadOptions,
  load,
  loadAdapterFor,
  loadForInference,
} from './checkpoint/load.ts'
export { type InferenceParameter, type Parameter, type QuantizedParameter, UserError } from './core/types.ts'
export type { CommittedToken, ConstraintSource, Generation, GenerationResult } from './decode/index.ts'
export { type AccelerateEvent, type AccelerateOptions, type AccelerateResult, accelerate } from './jobs/accelerate.ts'
export { type AugmentOptions, type AugmentResult, augment } from './jobs/augment.ts'
export { type ConvertEvent, type ConvertOptions, type ConvertResult, convert } from './jobs/convert.ts'
export { dpo } from './jobs/dpo.ts'
export { type EvaluateOptions, type EvaluateResult, evaluate } from './jobs/evaluate.ts'
export { type ExportModelOptions, type ExportModelResult, exportModel } from './jobs/export.ts'
export { type QuantizeEvent, type QuantizeOptions, type QuantizeResult, quantize } from './jobs/quantize.ts'
export { type QuickstartOptions, quickstart, tinyModel } from './jobs/quickstart.ts'
export {
  type AcceleratorRecipe,
  type AcceleratorRecipeInput,
  parseRecipe,
  type Recipe,
  type RecipeInput,
} from './jobs/recipe.ts'
export { rl } from './jobs/rl.ts'
export { sft } from './jobs/sft.ts'
export type { Executor } from './runtime/executor.ts'
export { createExecutor } from './runtime/onnxruntime/executor.ts'
export { openTask, parseTask } from './tasks/open.ts'
export { createSandbox, type RunProgram, type SandboxLimits } from './tasks/sandbox.ts'
export type { Task, Verdict } from './tasks/task.ts'
export type { TextEvent, TextResult, Writing } from './text/assemble.ts'
export { createGenerator, type GenerateSettings, type Generator } from './text/generator.ts'
export type { OpenModel, WriteSettings } from './text/model.ts'
export { type GenerateOptions, generate, type OpenOptions, openModel } from './text/open.ts'
export { type PromptStyle, promptIds } from './text/prompt.ts'
export type { ChatMessage, Tokenizer } from './tokenizer/types.ts'
export { mergeCheckpoints } from './train/merge.ts'
