// The checkpoint layer: opening, saving, describing and fetching models.

export { localModel, type PullOptions, pull } from './hub.ts'
export {
  makeCheckpointFolder,
  type SaveOptions,
  saveCheckpoint,
  writeCheckpoint,
} from './huggingface.ts'
export { type CheckpointInfo, compareTensors, inspectCheckpoint, type TensorDifferences } from './info.ts'
export { findModel, listModels, removeModel, type StoredModel } from './inventory.ts'
export { openCheckpoint } from './open.ts'
export { claimOutput } from './output.ts'
export { openSafetensors, type SafetensorsFile } from './safetensors.ts'
export {
  type DeferredParameter,
  type StoredDType,
  type WritableTensor,
  type WritableTensors,
  type WriteOptions,
  writeSafetensors,
} from './safetensors-write.ts'
export type { Checkpoint, TensorInfo } from './types.ts'
