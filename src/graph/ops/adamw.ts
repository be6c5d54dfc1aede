// AdamW (Loshchilov and Hutter, 2019, algorithm 2) over flat buffers, chunk by chunk so that the intermediates stay in
// the processor's cache: a Scan whose outputs may be the input buffers themselves (each chunk is read before it is written).
import * as z from 'zod'
import type { DType } from '../../core/types.ts'
import { defineOperation } from '../registry.ts'
import { type Shape, sameShape } from '../shape.ts'
import { apply, type Tensor } from '../tensor.ts'

const adamwAttributes = z.strictObject({ beta1: z.number(), beta2: z.number() })

const adamwOperation = defineOperation({
  name: 'adamw',
  inputs: ['p', 'g', 'm', 'v', 'gradientScale', 'decay', 'stepSize', 'epsilon'],
  outputs: ['p', 'm', 'v'],
  attributes: adamwAttributes,
  infer([p, g, m, v, ...scalars], _, fail) {
    if (p.shape.length !== 2) fail('the buffers must be [chunks, size]')
    for (const x of [g, m, v]) if (!sameShape(x.shape, p.shape)) fail('the buffers must have one shape')
    for (const x of scalars) if (x.shape.length !== 0) fail('the coefficients must be scalars')
    return [p, m, v].map(({ dtype, shape }) => ({ dtype, shape }))
  },
  onnx(emit, [p, g, m, v, gradientScale, decay, stepSize, epsilon], { beta1, beta2 }, node) {
    const size = node.inputs[0].shape[1]
    const body = emit.body()
    const chunk = (name: string) => ({ name, dtype: 'float32' as DType, shape: [size] as Shape })
    const names = ['p', 'g', 'm', 'v'].map((name) => `adamw.${name}`)
    const [bp, bg, bm, bv] = names
    const scaled = body.op('Mul', [bg, gradientScale])
    const nextM = body.op('Add', [
      body.op('Mul', [bm, body.float(beta1)]),
      body.op('Mul', [scaled, body.float(1 - beta1)]),
    ])
    const squared = body.op('Mul', [body.op('Mul', [scaled, scaled]), body.float(1 - beta2)])
    const nextV = body.op('Add', [body.op('Mul', [bv, body.float(beta2)]), squared])
    const denominator = body.op('Add', [body.op('Sqrt', [nextV]), epsilon])
    const step = body.op('Mul', [body.op('Div', [nextM, denominator]), stepSize])
    const nextP = body.op('Sub', [body.op('Mul', [bp, decay]), step])
    const outputs = [nextP, nextM, nextV]
    return emit.node('Scan', [p, g, m, v], {
      outputs: 3,
      attributes: {
        num_scan_inputs: 4,
        body: { name: 'adamw', inputs: names.map(chunk), outputs: outputs.map(chunk), body },
      },
    })
  },
})

export interface AdamwCoefficients {
  /** Factor on the gradient (clipping). */
  gradientScale: Tensor
  /** 1 - lr * weight_decay. */
  decay: Tensor
  /** lr * sqrt(1 - beta2^t) / (1 - beta1^t). */
  stepSize: Tensor
  /** eps * sqrt(1 - beta2^t): the bias correction of the second moment is folded into the step. */
  epsilon: Tensor
}

/** One update of flat buffers [chunks, size]: returns the new parameters and moments. */
export function adamw(
  p: Tensor,
  g: Tensor,
  m: Tensor,
  v: Tensor,
  { gradientScale, decay, stepSize, epsilon }: AdamwCoefficients,
  { beta1, beta2 }: z.infer<typeof adamwAttributes>,
): [Tensor, Tensor, Tensor] {
  const outputs = apply(adamwOperation, [p, g, m, v, gradientScale, decay, stepSize, epsilon], { beta1, beta2 })
  return outputs as [Tensor, Tensor, Tensor]
}
