// What a checkpoint is to the other layers, whatever file format it came from.

import type { BlockFormat, MappedParameter, ModelConfig, QuantizedParameter } from '../core/types.ts'
import type { StoredTensor } from '../formats/safetensors.ts'

/** Names are Hugging Face's (GGUF names are translated); stored types F32, F16, BF16, Q8_0, Q4_1, Q6_K ... */
export interface TensorInfo extends StoredTensor {
  /** Set where `readQuantized` can read it: the matrix is stored in blocks that decoding uses as they are. */
  blocks?: BlockFormat
}

/** An opened checkpoint: headers parsed and checked, no weights read yet. */
export interface Checkpoint {
  path: string
  format: 'safetensors' | 'gguf'
  config: ModelConfig
  /** generation_config.json where there is one. */
  generationConfig: Record<string, unknown> | undefined
  /** Where that lies, for messages. */
  generationConfigPath?: string | undefined
  tensors: ReadonlyMap<string, TensorInfo>
  /** One tensor, dequantised to float32 and laid out as Hugging Face does (llama.cpp's q/k permutation undone). */
  read(name: string): Promise<Float32Array>
  /** A matrix that has `blocks`, as it is stored (rows as `read` gives them). */
  readQuantized(name: string): Promise<QuantizedParameter>
  /** The same of `read` or `readQuantized` without reading; undefined where the file has the values in another form. */
  map(name: string): Promise<MappedParameter | undefined>
  /** tokenizer.json, tokenizer_config.json ... as text; built from the GGUF metadata where that is the source. */
  tokenizerFiles(): Promise<Record<string, string>>
  close(): Promise<void>
}
