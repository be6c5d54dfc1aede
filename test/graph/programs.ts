// The programs that models are run and trained with, tiny ones of every architecture. Used by tests only.

import type { WeightFormat } from '../../src/core/types.ts'
import { decodeProgram } from '../../src/decode/forward-program.ts'
import type { Program } from '../../src/graph/program.ts'
import { defaultTargetModules, loraShapes } from '../../src/models/lora.ts'
import type { Model } from '../../src/models/types.ts'
import type { Variant } from '../../src/objectives/index.ts'
import { isMatrixToQuantize, rowFormat } from '../../src/quant/layout.ts'
import { objectiveProgram } from '../../src/train/graph.ts'

const formats: Record<string, (shape: readonly number[]) => WeightFormat> = {
  '4 bits with zero points': () => ({ bits: 4, blockSize: 16, asymmetric: true }),
  '8 bits': () => ({ bits: 8, blockSize: 16, asymmetric: false }),
  '8 bits, activations too': rowFormat,
  '4 bits with offsets': () => ({ bits: 4, blockSize: 16, asymmetric: false, offsets: true }),
  float16: () => 'float16',
}

const objectives: readonly Variant[] = [
  { kind: 'ar' },
  { kind: 'mdlm', copies: 2, embeddingNoise: true, parts: ['text_loss', 'padding_loss'] },
  { kind: 'bdlm', blockSize: 4, copies: 2, aligned: true, embeddingNoise: true, parts: ['text_loss'] },
  { kind: 'bdlm', blockSize: 16, copies: 1, aligned: true },
  { kind: 'bdlm', blockSize: 4, copies: 1, aligned: false },
  { kind: 'tiles', blockSize: 4, embeddingNoise: true, parts: ['text_loss'] },
  { kind: 'tiles', blockSize: 16 },
  { kind: 'tiles', blockSize: 4, confidence: { beta: 2, temperature: 0.5 } },
  { kind: 'tiles', blockSize: 4, grouped: true },
  { kind: 'edits', blockSize: 4, maskTokenId: 1, turns: 2 },
  { kind: 'policy', states: { kind: 'tiles', blockSize: 4 } },
  { kind: 'hybrid', size: 4, count: 3, weight: 0.3 },
  { kind: 'dpo', likelihood: { kind: 'tiles', blockSize: 4 }, beta: 0.1, labelSmoothing: 0.1 },
  { kind: 'dpo', likelihood: { kind: 'ar' }, beta: 0.1, labelSmoothing: 0 },
]

/** Every program of a model, by what it is. */
export function* programsOf(model: Model): Generator<[name: string, program: Program]> {
  const adapter = loraShapes(model, { rank: 2, targetModules: defaultTargetModules(model) })
  yield ['decoding', decodeProgram(model)]
  yield ['decoding with an adapter', decodeProgram(model, undefined, { adapter })]
  yield ['decoding with soft states', decodeProgram(model, undefined, { softMask: 1 })]
  const matrices = [...model.parameters].filter(([name, shape]) => isMatrixToQuantize(name, shape))
  for (const [name, formatOf] of Object.entries(formats))
    yield [
      `decoding, ${name}`,
      decodeProgram(model, new Map(matrices.map(([matrix, shape]) => [matrix, formatOf(shape)]))),
    ]

  const shape = { rows: 2, length: 32 }
  const training = { gradients: true, gradientCheckpointing: false }
  for (const objective of objectives)
    yield [JSON.stringify(objective), objectiveProgram(model, objective, shape, training)]
  const [objective] = objectives
  yield ['validation', objectiveProgram(model, objective, shape, { gradients: false })]
  yield [
    'gradient checkpointing',
    objectiveProgram(model, objective, shape, { ...training, gradientCheckpointing: true }),
  ]
  const routing = { auxLossCoefficient: 0.01 }
  yield ['with an auxiliary loss', objectiveProgram(model, objective, shape, { ...training, routing })]
  const bits = new Map(matrices.map(([matrix, shape]) => [matrix, formats['4 bits with offsets'](shape)]))
  for (const dora of [false, true]) {
    const adapter = loraShapes(model, {
      ...{ rank: 2, targetModules: defaultTargetModules(model), dora, maskEmbedding: false },
    })
    const options = { ...training, adapter, loraScale: 2, formats: bits, exact: true }
    yield [
      `low-rank weights${dora ? ' with lengths' : ''} on 4 bits`,
      objectiveProgram(model, objective, shape, options),
    ]
  }
  const strided: Variant = { kind: 'strided', size: 2, count: 3, distill: 0.5, scale: 2 }
  yield ['strided', objectiveProgram(model, strided, shape, { gradients: true, adapter })]
}
