// Logits of a model under any mask, for comparison with reference logits.
import { type Attend, blockCausal, blockDiffusion, fullAttention } from '../../src/diffusion/attention.ts'
import { input } from '../../src/graph/ops/input.ts'
import { slice } from '../../src/graph/ops/layout.ts'
import { linear } from '../../src/graph/ops/linear.ts'
import type { Program } from '../../src/graph/program.ts'
import type { Model } from '../../src/models/index.ts'
import { createWeights } from '../../src/nn/weights.ts'
import type { Executor } from '../../src/runtime/executor.ts'
import type { Parameter, TensorData } from '../../src/core/types.ts'

export type Mask =
  | 'causal'
  | 'bidirectional'
  | { blockCausal: number }
  /** `aligned`: documents start at multiples of the block size. Default false. */
  | { blockDiffusion: number; aligned?: boolean }

export interface LogitsInput {
  rows: number
  length: number
  /** [copies * rows, length]; two copies for block diffusion. */
  ids: ArrayLike<number>
  documents: ArrayLike<number>
  /** [rows, length]; default 0..length-1 in every row. */
  positions?: ArrayLike<number>
}

/** A program whose output `logits` is [copies * rows, length, vocabulary], and its feeds without the weights. */
export function logitsProgram(
  model: Model,
  mask: Mask,
  { rows, length, ids, documents, positions: given }: LogitsInput,
): { program: Program; feeds: Record<string, TensorData> } {
  const copies = ids.length / (rows * length)
  const positions = input('position_ids', 'int64', [copies * rows, length])
  const layout = { documents: input('document_ids', 'int64', [rows, length]), positions: slice(positions, 0, 0, rows) }
  const { dimensions } = model
  const attention: Attend =
    mask === 'causal'
      ? blockCausal(layout, 1, dimensions)
      : mask === 'bidirectional'
        ? fullAttention(layout, 1, dimensions)
        : 'blockCausal' in mask
          ? blockCausal(layout, mask.blockCausal, dimensions)
          : blockDiffusion(layout, { copies: 1, blockSize: mask.blockDiffusion, aligned: mask.aligned ?? false }, dimensions)
  const { hidden, head } = model.trace(createWeights(model.parameters), {
    ids: input('input_ids', 'int64', [copies * rows, length]),
    positions,
    positionCount: length,
    attention,
  })
  const whole = (shape: number[], values: ArrayLike<number>) => ({
    dtype: 'int64' as const,
    shape,
    data: BigInt64Array.from(Array.from(values, (value) => BigInt(value))),
  })
  const feeds = {
    input_ids: whole([copies * rows, length], ids),
    position_ids: whole(
      [copies * rows, length],
      Array.from({ length: copies * rows * length }, (_, i) => given?.[i % (rows * length)] ?? i % length),
    ),
    document_ids: whole([rows, length], documents),
  }
  return { program: { name: 'logits', outputs: { logits: linear(hidden, head) } }, feeds }
}

/** Logits [copies * rows, length, vocabulary]. */
export async function logits(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, Parameter>,
  mask: Mask,
  input: LogitsInput,
): Promise<Float32Array> {
  const { program, feeds } = logitsProgram(model, mask, input)
  const parameters = Object.fromEntries(
    [...weights].map(([name, { shape, data }]) => [name, { dtype: 'float32' as const, shape, data }]),
  )
  const session = await executor.load(program, { optimize: false })
  try {
    const outputs = await session.run({ ...feeds, ...parameters }, { logits: null })
    return outputs.logits.data as Float32Array
  } finally {
    await session.release()
  }
}
