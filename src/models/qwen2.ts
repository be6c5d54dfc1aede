// Qwen2 and Qwen2.5: the decoder with biases on the projections of queries, keys and values, and no others.
import { reader } from './config.ts'
import { createDecoder } from './decoder.ts'
import type { Architecture } from './types.ts'

export const qwen2: Architecture = {
  modelType: 'qwen2',
  create(config) {
    reader(config).must('use_sliding_window', false)
    return createDecoder(config, { qkvBias: true })
  },
}
