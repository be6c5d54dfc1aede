// Compares the gradients of a traced expression with central finite differences, run on a real executor.

import { random } from '../../src/core/random.ts'
import type { TensorData } from '../../src/core/types.ts'
import { gradients } from '../../src/graph/gradient.ts'
import { mul } from '../../src/graph/ops/elementwise.ts'
import { input } from '../../src/graph/ops/input.ts'
import { sum } from '../../src/graph/ops/reduce.ts'
import { type Shape, staticSize } from '../../src/graph/shape.ts'
import type { Tensor } from '../../src/graph/tensor.ts'
import type { Executor } from '../../src/runtime/executor.ts'

export type Values = Record<string, TensorData>

/** Standard normal values. */
export function normal(seed: number, shape: readonly number[]): TensorData {
  const data = random(seed, 0x6e).fillNormal(new Float32Array(staticSize(shape)))
  return { dtype: 'float32', shape, data }
}

/** Values in [0.5, 2], for operations with a pole at 0. */
export function positive(seed: number, shape: readonly number[]): TensorData {
  const data = random(seed, 0x70).fillUniform(new Float32Array(staticSize(shape)))
  return { dtype: 'float32', shape, data: data.map((x) => 0.5 + 1.5 * x) }
}

/** Whole numbers below `limit`, many of them more than once. */
export function indices(seed: number, shape: readonly number[], limit: number): TensorData {
  const draw = random(seed, 0x69)
  return int64(
    shape,
    Array.from({ length: staticSize(shape) }, () => draw.integer(limit)),
  )
}

export const int64 = (shape: readonly number[], values: readonly number[]): TensorData => ({
  dtype: 'int64',
  shape,
  data: BigInt64Array.from(values.map(BigInt)),
})

export interface Expression {
  values: Values
  /** Inputs whose gradient is checked; the float32 ones by default. */
  wanted?: readonly string[]
  /** Shapes to trace an input with where they are not those of its values: symbolic ones. */
  shapes?: Record<string, Shape>
  build(inputs: Record<string, Tensor>): Tensor
}

/** Evaluates an expression and returns the values of its result. */
export async function evaluate(executor: Executor, { values, shapes = {}, build }: Expression): Promise<TensorData> {
  const result = build(declare(values, shapes))
  const session = await executor.load(
    { name: 'expression', outputs: { result } },
    {
      optimize: false,
    },
  )
  try {
    return (await session.run(values, { result: null })).result
  } finally {
    await session.release()
  }
}

const declare = (values: Values, shapes: Record<string, Shape>): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(values).map(([name, { dtype, shape }]) => [name, input(name, dtype, shapes[name] ?? shape)]),
  )

/** Fourth-order central difference: steps of +-h and +-2h, with these weights over h. */
const STENCIL: readonly (readonly [step: number, weight: number])[] = [
  [-2, 1 / 12],
  [-1, -8 / 12],
  [1, 8 / 12],
  [2, -1 / 12],
]
const STEP = 0.02
const RELATIVE = 2e-3
const ABSOLUTE = 2e-4

/**
 * Throws where the derivative of sum(y * r), r random, along random directions and single coordinates of each wanted
 * input is not the one that the traced gradient gives.
 */
export async function checkGradients(executor: Executor, expression: Expression, seed = 1): Promise<void> {
  const { values, shapes = {}, build } = expression
  const wanted = expression.wanted ?? Object.keys(values).filter((name) => values[name].dtype === 'float32')
  const load = (outputs: Record<string, Tensor>) => executor.load({ name: 'check', outputs }, { optimize: false })
  const forward = await load({ result: build(declare(values, shapes)) })
  const evaluateAt = async (at: Values) => (await forward.run(at, { result: null })).result
  const first = await evaluateAt(values)
  const cotangent = normal(seed, first.shape)

  const inputs = declare(values, shapes)
  const y = build(inputs)
  const loss = sum(mul(y, input('cotangent', 'float32', y.shape)))
  const traced = gradients(
    loss,
    wanted.map((name) => inputs[name]),
  )
  const backward = await load(Object.fromEntries(wanted.map((name, i) => [`d.${name}`, traced[i]])))
  const results = await backward.run(
    { ...values, cotangent },
    Object.fromEntries(wanted.map((name) => [`d.${name}`, null])),
  )
  await backward.release()

  for (const [which, name] of wanted.entries()) {
    const { shape, data } = values[name]
    const gradient = results[`d.${name}`]
    if (gradient.shape.join() !== shape.join())
      throw new Error(`the gradient of ${name} is [${gradient.shape}] instead of [${shape}]`)
    for (const [label, direction] of directions(seed + which, data.length)) {
      let difference = 0
      let size = 0
      for (const [step, weight] of STENCIL) {
        const moved = Float32Array.from(direction, (u, i) => Number(data[i]) + step * STEP * u)
        const y = await evaluateAt({ ...values, [name]: { dtype: 'float32', shape, data: moved } })
        for (let i = 0; i < y.data.length; i++) {
          const term = Number(y.data[i]) * Number(cotangent.data[i])
          difference += (weight / STEP) * term
          size = Math.max(size, Math.abs(term))
        }
      }
      let expected = 0
      let scale = 0
      direction.forEach((u, i) => {
        expected += u * Number(gradient.data[i])
        scale += (u * Number(gradient.data[i])) ** 2
      })
      const tolerance = RELATIVE * Math.sqrt(scale) + ABSOLUTE * Math.max(1, size)
      if (!(Math.abs(difference - expected) <= tolerance))
        throw new Error(
          `${name} [${shape}], ${label}: the gradient gives ${expected}, finite differences give ${difference}`,
        )
    }
  }
  await forward.release()
}

/** Three directions of random signs, and up to four single coordinates. */
function* directions(seed: number, size: number): Generator<[string, Float64Array]> {
  const draw = random(seed, 0x64)
  for (let i = 0; i < 3; i++)
    yield [`random direction ${i}`, Float64Array.from({ length: size }, () => (draw.uniform() < 0.5 ? -1 : 1))]
  for (let i = 0; i < Math.min(4, size); i++) {
    const unit = new Float64Array(size)
    const at = draw.integer(size)
    unit[at] = 1
    yield [`coordinate ${at}`, unit]
  }
}

/** The derivative of a loss along a direction by five-point differences: `loss(t)` is its value t directions further. */
export async function directionalDerivative(loss: (t: number) => Promise<number>, step: number): Promise<number> {
  let derivative = 0
  for (const [at, weight] of [
    [-2, 1 / 12],
    [-1, -8 / 12],
    [1, 8 / 12],
    [2, -1 / 12],
  ] as const)
    derivative += (weight / step) * (await loss(step * at))
  return derivative
}
