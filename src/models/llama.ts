// Llama (Llama 2 and 3, SmolLM2, TinyLlama ...): the decoder itself, with biases where the config asks for them.
import { reader } from './config.ts'
import { createDecoder } from './decoder.ts'
import { denseMlp } from './mlp.ts'
import type { Architecture } from './types.ts'

export const llama: Architecture = {
  modelType: 'llama',
  create(config) {
    const read = reader(config)
    const bias = read.flag('attention_bias', false)
    return createDecoder(config, {
      qkvBias: bias,
      outputBias: bias,
      mlp: (_, hiddenSize) =>
        denseMlp(hiddenSize, read.size('intermediate_size'), { bias: read.flag('mlp_bias', false) }),
    })
  },
}
