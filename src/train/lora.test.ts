// Low-rank weights in training, on bases in float32 and quantised: what they compute is what the model computes that they are
// fused into, their gradients are those of the loss, and they alone are trained.
import { afterAll, describe, expect, it } from 'vitest'
import { directionalDerivative, normal } from '../../test/graph/gradient-check.ts'
import { packedBatch } from '../../test/packed-batch.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import type { BlockFormat, InferenceParameter, Parameter } from '../core/types.ts'
import {
  defaultTargetModules,
  fuse,
  initialLora,
  initialMagnitudes,
  isMagnitude,
  loraShapes,
  partnersOf,
} from '../models/lora.ts'
import { type TrainedObjective, trainedObjectives } from '../objectives/index.ts'
import { floatValues, isMatrixToQuantize } from '../quant/layout.ts'
import { roundToNearest } from '../quant/round.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createTrainer, type TrainerOptions } from './trainer.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

const { model, weights } = tinyLlama()
const batch = packedBatch(39)
const scale = 0.7
const maskTokenId = 39
const targetModules = defaultTargetModules(model)
const shapesOf = (dora: boolean) => loraShapes(model, { rank: 3, targetModules, dora, maskEmbedding: false })

function quantized(format: BlockFormat | undefined): Map<string, InferenceParameter> {
  return new Map(
    [...weights].map(([name, { shape, data }]) => [
      name,
      format && isMatrixToQuantize(name, shape) ? roundToNearest(shape, data, format) : { shape, data },
    ]),
  )
}

const bases: [string, Map<string, InferenceParameter>][] = [
  ['float32', quantized(undefined)],
  ['8 bits', quantized({ bits: 8, blockSize: 16, asymmetric: false })],
  ['4 bits', quantized({ bits: 4, blockSize: 16, asymmetric: false, offsets: true })],
]

const initial = async (base: ReadonlyMap<string, InferenceParameter>, dora: boolean) =>
  new Map([...initialLora(shapesOf(dora), undefined, 1), ...(await initialMagnitudes(shapesOf(dora), base))])

/** Low-rank weights that change something. */
async function lora(base: ReadonlyMap<string, InferenceParameter>, dora: boolean): Promise<Map<string, Parameter>> {
  const parameters = await initial(base, dora)
  let seed = 20
  for (const [name, { shape, data }] of parameters) {
    const noise = normal(seed++, shape).data as Float32Array
    if (name.endsWith('lora_B.weight')) data.set(noise.map((x) => 0.2 * x))
    if (isMagnitude(name)) data.set(data.map((length, i) => length * (1 + 0.1 * noise[i])))
  }
  return parameters
}

/** The model in float32 that low-rank weights make of a base; `stretched`: the lengths of rows too. */
async function fused(
  base: ReadonlyMap<string, InferenceParameter>,
  parameters: ReadonlyMap<string, Parameter>,
  stretched = true,
): Promise<Map<string, Parameter>> {
  const all = new Map<string, Parameter>()
  for (const [name, parameter] of base)
    all.set(name, { shape: parameter.shape, data: (await floatValues(parameter)).slice() })
  for (const [name, a] of parameters) {
    if (!name.endsWith('lora_A.weight')) continue
    const { weight, b, magnitude } = partnersOf(name)
    const lengths = stretched ? parameters.get(magnitude) : undefined
    fuse(all.get(weight)!.data, { a, b: parameters.get(b)!, magnitude: lengths }, scale)
  }
  return all
}

const options = (objective: TrainedObjective): TrainerOptions => ({
  objective,
  maskTokenId,
  finalBlockSize: 4,
  weighting: 'elbo',
  noise: {},
  seed: 1,
  ...{ beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1e9 },
})

const blockSize = 4
const evaluation = { blockSize, seed: 5 } as const

const cases = trainedObjectives.flatMap((objective) =>
  // Formats, and DoRA, differ in projections alone, whatever the objective.
  (objective === 'diffusion' ? bases : bases.slice(2)).flatMap(([bits, base]) =>
    (objective === 'diffusion' ? [false, true] : [false]).map((dora) => ({
      name: `${dora ? 'DoRA' : 'LoRA'} under objective ${objective} on a base in ${bits}`,
      ...{ objective, base, dora },
    })),
  ),
)

describe.each(cases)('$name', ({ objective, base, dora }) => {
  it('gives the likelihood of the model that it is fused into', async () => {
    const likelihood = async (
      weights: ReadonlyMap<string, InferenceParameter>,
      parameters?: ReadonlyMap<string, Parameter>,
    ) => {
      const trainer = await createTrainer(executor, model, weights, {
        ...options(objective),
        lora: parameters && { parameters, scale },
      })
      const { nll } = await trainer.evaluate([batch], {
        ...evaluation,
        blockSize: objective === 'ar' ? 'ar' : blockSize,
      })
      await trainer.dispose()
      return nll
    }
    const parameters = await lora(base, dora)
    const whole = await likelihood(await fused(base, parameters))
    const low = await likelihood(base, parameters)
    expect(Math.abs(low / whole - 1)).toBeLessThan(1e-5)
    expect(Math.abs((await likelihood(await fused(base, new Map()))) / whole - 1)).toBeGreaterThan(1e-3)
  })

  it('has the gradients of the loss, and changes nothing before it is trained', async () => {
    const step = async (weights: ReadonlyMap<string, InferenceParameter>, parameters?: Map<string, Parameter>) => {
      const trainer = await createTrainer(executor, model, weights, {
        ...options(objective),
        lora: parameters && { parameters, scale },
      })
      const result = await trainer.step({ step: 0, batches: [batch], blockSize, learningRate: 0, embeddingNoise: 0 })
      await trainer.dispose()
      return result.loss
    }
    const before = await step(await fused(base, new Map()))
    expect(await step(base, await initial(base, dora))).toBeCloseTo(before, 5)

    // Along the gradient itself the loss changes by its length.
    const parameters = await lora(base, dora)
    const trainer = await createTrainer(executor, model, base, {
      ...options(objective),
      ...{ beta1: 0, beta2: 0, epsilon: 1e3 },
      lora: { parameters, scale },
    })
    const input = { step: 0, batches: [batch], blockSize, learningRate: 1, embeddingNoise: 0 }
    const { gradNorm } = await trainer.step(input)
    const moved = await trainer.parameters()
    await trainer.dispose()
    // AdamW with such an epsilon moves by -gradient / epsilon.
    const direction = new Map(
      [...moved].map(([name, { data }]) => [name, data.map((x, i) => (parameters.get(name)!.data[i] - x) * 1e3)]),
    )
    const unstretched = await fused(base, parameters, false)
    const slope = await directionalDerivative(async (t) => {
      const at = new Map(
        [...parameters].map(([name, { shape, data }]): [string, Parameter] => [
          name,
          { shape, data: data.map((x, i) => x + (t * direction.get(name)![i]) / gradNorm) },
        ]),
      )
      if (dora) keepLengths(at, unstretched, await fused(base, at, false))
      return step(base, at)
    }, 0.02)
    expect(Math.abs(slope / gradNorm - 1)).toBeLessThan(0.02)
  })
})

/**
 * Gradients take the lengths by which rows are divided for constants. What the lengths `after` would change is undone in the
 * lengths that rows are given.
 */
function keepLengths(
  at: Map<string, Parameter>,
  before: ReadonlyMap<string, Parameter>,
  after: ReadonlyMap<string, Parameter>,
): void {
  for (const [name, { data }] of at) {
    if (!isMagnitude(name)) continue
    const weight = name.replace('lora_magnitude_vector', 'weight')
    const width = before.get(weight)!.shape[1]
    const length = (weights: ReadonlyMap<string, Parameter>, row: number) =>
      Math.hypot(...weights.get(weight)!.data.subarray(row * width, (row + 1) * width))
    for (let row = 0; row < data.length; row++) data[row] *= length(after, row) / length(before, row)
  }
}

it.each([false, true])('trains and returns its parameters alone (DoRA: %s)', async (dora) => {
  const [, base] = bases[2]
  const parameters = await initial(base, dora)
  const trainer = await createTrainer(executor, model, base, { ...options('hybrid'), lora: { parameters, scale } })
  const nll = async () => (await trainer.evaluate([batch], { ...evaluation, blockSize: 'ar' })).nll
  const before = await nll()
  for (let step = 0; step < 30; step++)
    await trainer.step({ step, batches: [batch], blockSize, learningRate: 0.03, embeddingNoise: 0 })
  expect(await nll()).toBeLessThan(before / 2)
  expect([...(await trainer.parameters()).keys()].sort()).toEqual([...shapesOf(dora).keys()].sort())
  await trainer.dispose()
})

it('a quantised model is not trained itself', async () => {
  const [, base] = bases[1]
  await expect(createTrainer(executor, model, base, options('ar'))).rejects.toThrow('only low-rank weights can be')
})

it('fuse adds scale B A, and gives rows their lengths', () => {
  const a = { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) }
  const b = { shape: [2, 2], data: Float32Array.of(1, 0, 2, -1) }
  const w = Float32Array.of(1, 1, 1, 0, 0, 0)
  fuse(w, { a, b }, 2)
  expect([...w]).toEqual([3, 5, 7, -4, -2, 0])
  fuse(w, { a, b, magnitude: { shape: [2], data: Float32Array.of(2, 1) } }, 0)
  expect(Math.hypot(...w.subarray(0, 3))).toBeCloseTo(2, 6)
  expect(w[3] / w[4]).toBeCloseTo(2, 6)
})

it('a rank above the width of a projection is refused', () => {
  expect(() => loraShapes(model, { rank: 17, targetModules: ['k_proj'] })).toThrow(
    'rank: 17 is above the width of model.layers.0.self_attn.k_proj, which is [16, 32]; expected at most 16',
  )
})
