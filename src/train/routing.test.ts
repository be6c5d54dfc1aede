// Training mixtures of experts: what stays as it is, how biases and the auxiliary loss balance the load, how it is counted.
import { afterAll, describe, expect, it } from 'vitest'
import { checkGradients, evaluate, normal, positive } from '../../test/graph/gradient-check.ts'
import { batch, model as dense, options } from '../../test/train/tiny.ts'
import { randomParameters } from '../checkpoint/load.ts'
import { type ModelConfig, type Parameter, type TensorData, UserError } from '../core/types.ts'
import type { Batch } from '../data/types.ts'
import type { input } from '../graph/ops/input.ts'
import { createModel } from '../models/index.ts'
import { bdlm } from '../objectives/bdlm.ts'
import type { Source } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { objectiveProgram } from './graph.ts'
import { balanceLoss, checkRouting, loadMetrics, type RoutingOptions } from './routing.ts'
import { createTrainer } from './trainer.ts'
import type { StepResult } from './types.ts'

const executor = createExecutor({ threads: 1 })
afterAll(() => executor.dispose())

/** Two layers of 8 experts, two of which a position goes to. */
const config: ModelConfig = {
  model_type: 'llada2_moe',
  vocab_size: 24,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  num_experts: 8,
  num_experts_per_tok: 2,
  moe_intermediate_size: 8,
  num_shared_experts: 1,
  n_group: 2,
  topk_group: 2,
  moe_router_enable_expert_bias: true,
  initializer_range: 0.2,
}
const model = createModel(config)
const biases = model.mixtures.map(({ bias }) => bias!)
const routers = model.mixtures.map(({ router }) => router)

function weights(): Map<string, Parameter> {
  const all = randomParameters(model, 3)
  for (const name of biases) all.set(name, { shape: [8], data: new Float32Array(8) })
  return all
}

interface Run {
  parameters: Map<string, Parameter>
  results: StepResult[]
}

async function run(
  routing: RoutingOptions,
  {
    steps = 1,
    batches = [batch(1), batch(2)] as Batch[],
    lr = 1e-2,
    on = executor,
    gradientCheckpointing = false,
  } = {},
): Promise<Run> {
  const trainer = await createTrainer(on, model, weights(), { ...options, routing, gradientCheckpointing })
  try {
    const results: StepResult[] = []
    for (let step = 0; step < steps; step++)
      results.push(await trainer.step({ step, batches, blockSize: 4, learningRate: lr, embeddingNoise: 0 }))
    const parameters = new Map<string, Parameter>()
    for (const [name, { shape, data }] of await trainer.parameters())
      parameters.set(name, { shape, data: data.slice() })
    return { parameters, results }
  } finally {
    await trainer.dispose()
  }
}

const valuesOf = (parameters: ReadonlyMap<string, Parameter>, names: readonly string[]) =>
  names.map((name) => parameters.get(name)!.data)

describe('what is trained', () => {
  it('is everything but the biases, unless routers are frozen', async () => {
    const [before, trained, frozen] = [
      weights(),
      await run({}, { steps: 3 }),
      await run({ freezeRouters: true }, { steps: 3 }),
    ]
    const others = [...model.parameters.keys()].filter((name) => ![...biases, ...routers].includes(name))
    for (const { parameters } of [trained, frozen]) {
      expect(valuesOf(parameters, biases)).toEqual(valuesOf(before, biases))
      for (const name of others) expect(parameters.get(name), name).not.toEqual(before.get(name))
    }
    expect(valuesOf(frozen.parameters, routers)).toEqual(valuesOf(before, routers))
    for (const name of routers) expect(trained.parameters.get(name)).not.toEqual(before.get(name))
  })

  it('does not depend on the step of the biases, which move against the load', async () => {
    const rate = 0.25
    const [still, moved] = [await run({}), await run({ biasUpdateRate: rate })]
    const [result] = moved.results
    expect(result).toEqual(still.results[0])
    for (const [name, value] of still.parameters)
      if (!biases.includes(name)) expect(moved.parameters.get(name)).toEqual(value)
    valuesOf(moved.parameters, biases).forEach((bias, layer) => {
      const load = (result.metrics.expert_load as number[][])[layer]
      // Shares are rounded: their own mean would not be that of the counts.
      const mean = 1 / load.length
      expect(Array.from(bias)).toEqual(load.map((share) => rate * Math.sign(mean - share)))
      expect(new Set(bias).size).toBeGreaterThan(1)
    })
  })

  it('continues with the biases that were saved', async () => {
    const routing = { biasUpdateRate: 0.1 }
    const whole = await run(routing, { steps: 4 })
    const step = (i: number) => ({
      step: i,
      batches: [batch(1), batch(2)],
      blockSize: 4,
      learningRate: 1e-2,
      embeddingNoise: 0,
    })
    const first = await createTrainer(executor, model, weights(), { ...options, routing })
    for (let i = 0; i < 2; i++) await first.step(step(i))
    const saved = { parameters: await first.parameters(), optimizer: await first.optimizerState() }
    await first.dispose()
    const second = await createTrainer(executor, model, weights(), { ...options, routing })
    await second.fill(saved)
    for (let i = 2; i < 4; i++) await second.step(step(i))
    expect(await second.parameters()).toEqual(whole.parameters)
    await second.dispose()
  })

  it('is refused where the model has no such thing', () => {
    expect(() => checkRouting(dense, { freezeRouters: true })).toThrow(UserError)
    expect(() => checkRouting(dense, { auxLossCoefficient: 1 })).toThrow(
      'router_aux_loss_coef: the model has no mixture',
    )
    const unbiased = createModel({ ...config, moe_router_enable_expert_bias: false })
    expect(() => checkRouting(unbiased, { biasUpdateRate: 1 })).toThrow(
      'router_bias_update_rate: the routers have no bias',
    )
    expect(() => checkRouting(dense, {})).not.toThrow()
    expect(() => checkRouting(unbiased, { freezeRouters: true })).not.toThrow()
  })
})

describe('the same bits', () => {
  const routing = { biasUpdateRate: 0.01, auxLossCoefficient: 0.1 }

  it('come from two threads each time', async () => {
    const threads = createExecutor({ threads: 2 })
    const [first, second] = [
      await run(routing, { steps: 3, on: threads }),
      await run(routing, { steps: 3, on: threads }),
    ]
    await threads.dispose()
    expect(second).toEqual(first)
  })

  it('come from activations that are kept and from those that are computed again', async () => {
    const kept = await run(routing, { steps: 2 })
    expect(await run(routing, { steps: 2, gradientCheckpointing: true })).toEqual(kept)
  })
})

describe('the load', () => {
  it('counts the positions of documents, and at the end those that carry loss', async () => {
    const whole = batch(1)
    const padded: Batch = {
      ...whole,
      documents: whole.documents.map((document, i) => (i % whole.length >= 8 ? -1 : document)),
      maskable: whole.maskable.map((flag, i) => (i % whole.length >= 8 ? 0 : flag)),
    }
    for (const [source, positions] of [
      [whole, 32],
      [padded, 16],
    ] as const) {
      const settings = { ...options, hiddenSize: 16, blockSize: 4, embeddingNoise: 0 }
      const { objective, feeds, counts } = bdlm.prepare(source, { seed: 1, step: 0, row: 0 }, settings)
      const program = objectiveProgram(model, objective, source, { gradients: true })
      const outputs = { expert_load: program.outputs.expert_load }
      const session = await executor.load({ ...program, outputs })
      const given: Record<string, Source> = { ...feeds }
      for (const [name, value] of weights()) given[name] = { dtype: 'float32', ...value }
      const { expert_load } = await session.run(given, { expert_load: null })
      await session.release()
      const load = Array.from(expert_load.data, Number)
      const [first, last] = [load.slice(0, 8), load.slice(8)].map((layer) => layer.reduce((a, b) => a + b, 0))
      // A noised and a clean copy; two experts per position.
      expect(first).toBe(2 * positions * 2)
      expect(last).toBe(2 * counts!.loss_positions)
    }
  })

  it.each([
    [{ biasUpdateRate: 0.02 }, 'moving biases'],
    [{ auxLossCoefficient: 0.3 }, 'an auxiliary loss'],
  ])('%j: is evened by %s', async (routing, _) => {
    const unevenness = ({ results }: Run) => {
      const late = results.slice(-5).flatMap(({ metrics }) => metrics.expert_load_max as number[])
      return late.reduce((a, b) => a + b, 0) / late.length
    }
    const settings = { steps: 40, lr: 3e-3 }
    expect(unevenness(await run(routing, settings))).toBeLessThan(0.8 * unevenness(await run({}, settings)))
  })

  it('is summed up by its largest share and its entropy', () => {
    const even = loadMetrics([[5, 5, 5, 5]])
    expect(even).toEqual({
      expert_load_max: [1],
      expert_load_entropy: [1],
      expert_load: [[0.25, 0.25, 0.25, 0.25]],
    })
    expect(loadMetrics([[7, 0, 0, 0]])).toMatchObject({ expert_load_max: [4], expert_load_entropy: [0] })
    expect(
      loadMetrics([
        [3, 1],
        [0, 0],
      ]),
    ).toEqual({
      expert_load_max: [1.5, 0],
      expert_load_entropy: [0.8113, 0],
      expert_load: [
        [0.75, 0.25],
        [0, 0],
      ],
    })
    expect(loadMetrics([new Array(257).fill(1)]).expert_load).toBeUndefined()
  })
})

describe('the auxiliary loss', () => {
  const [rows, experts, topK] = [6, 4, 2]
  const scores = positive(4, [rows, experts])
  /** The experts of each row; the last row does not count. */
  const chosen = Array.from({ length: rows }, (_, row) => [row % 3, 3])
  const values: Record<string, TensorData> = {
    scores,
    selected: {
      dtype: 'float32',
      shape: [rows, experts],
      data: Float32Array.from({ length: rows * experts }, (_, i) =>
        Number(chosen[Math.floor(i / experts)].includes(i % experts)),
      ),
    },
    counted: { dtype: 'float32', shape: [rows], data: Float32Array.of(1, 1, 1, 1, 1, 0) },
  }
  const build = (t: Record<string, ReturnType<typeof input>>) =>
    balanceLoss([{ scores: t.scores, selected: t.selected }], { positions: t.counted, selected: t.counted })

  it('is E times the sum of share and mean score', async () => {
    const score = (row: number, expert: number) => scores.data[row * experts + expert] as number
    let expected = 0
    for (let e = 0; e < experts; e++) {
      let [share, mean] = [0, 0]
      for (let row = 0; row < 5; row++) {
        const sum = [0, 1, 2, 3].reduce((total, other) => total + score(row, other), 0)
        share += Number(chosen[row].includes(e)) / 5
        mean += score(row, e) / sum / 5
      }
      expected += experts * share * mean
    }
    expect((await evaluate(executor, { values, build })).data[0]).toBeCloseTo(expected, 5)
  })

  it('has a gradient with respect to the scores', () => checkGradients(executor, { values, wanted: ['scores'], build }))

  it('is the number of experts per position where the load is even', async () => {
    const even = {
      ...values,
      scores: { ...normal(0, [rows, experts]), data: new Float32Array(rows * experts).fill(0.5) },
    }
    expect((await evaluate(executor, { values: even, build })).data[0]).toBeCloseTo(topK, 5)
  })

  it('is reported beside the loss, not in it', async () => {
    const [without, balanced] = [await run({}), await run({ auxLossCoefficient: 0.5 })]
    expect(balanced.results[0].loss).toBe(without.results[0].loss)
    expect(balanced.results[0].gradNorm).not.toBe(without.results[0].gradNorm)
    expect(balanced.results[0].metrics.router_aux_loss).toBeGreaterThan(1.9)
    expect(without.results[0].metrics.router_aux_loss).toBeUndefined()
  })
})
