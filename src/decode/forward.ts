// Runs the inference program for one sequence: new tokens against its cache. Knows what a forward is, not when to do one.
import type { Model } from '../models/types.ts'
import type { Executor } from '../runtime/executor.ts'
import { type InferenceParameter, type TensorData, UserError } from '../types.ts'
import { type Cache, createCache } from './cache.ts'
import { loadDecodeProgram } from './program.ts'
import type { Predictions } from './types.ts'

export interface ForwardRequest {
  /** The tokens that follow the cache, whose length is the position of the first. */
  ids: readonly number[]
  /** They see each other block-causally, by floor(position / block size); 1 is a causal mask. */
  blockSize: number
  /** Indices into `ids` that are predicted. */
  rows: readonly number[]
  /** How many of `ids`, from the first, are stored in the cache. They must be final. */
  store: number
  /** Multiplies the logits before the softmax. Default 1. */
  logitScale?: number
  /** Also returns the logits: a copy of vocabulary size per row. Default false. */
  logits?: boolean
  signal?: AbortSignal
}

export interface ForwardResult extends Predictions {
  /** [rows, vocabulary], unscaled, where asked for. */
  logits: Float32Array | undefined
}

export interface Forward {
  createCache(): Promise<Cache>
  /** Throws UserError where the model's values are not numbers, and the signal's reason when aborted. */
  run(cache: Cache, request: ForwardRequest): Promise<ForwardResult>
  dispose(): Promise<void>
}

let instances = 0

/** Loads the inference program. The tokens `forbidden` are never predicted. The weights are copied. */
export async function createForward(
  executor: Executor,
  model: Model,
  weights: ReadonlyMap<string, InferenceParameter>,
  forbidden: readonly number[],
): Promise<Forward> {
  const { dimensions } = model
  const name = `decode${instances++}`
  const session = await loadDecodeProgram(executor, model, weights)
  const tokenBias = new Float32Array(dimensions.vocabSize)
  for (const token of forbidden) tokenBias[token] = Number.NEGATIVE_INFINITY
  const bias = { resident: `${name}.token_bias`, shape: [dimensions.vocabSize] }
  await executor.allocate(bias.resident, 'float32', tokenBias)
  let caches = 0

  return {
    createCache: () => createCache(executor, dimensions, `${name}.${caches++}`),
    async run(cache, { ids, blockSize, rows, store, logitScale = 1, logits = false, signal }) {
      await cache.reserve(cache.length + store)
      const shape = [1, ids.length]
      const outputs = await session.run(
        {
          ...cache.feeds(),
          input_ids: int64(shape, ids),
          position_ids: int64(
            shape,
            ids.map((_, i) => cache.length + i),
          ),
          document_ids: { dtype: 'int64', shape, data: new BigInt64Array(ids.length) },
          block_size: int64([], [blockSize]),
          cache_length: int64([1], [cache.length]),
          row_index: int64([rows.length], rows),
          logit_scale: { dtype: 'float32', shape: [], data: Float32Array.of(logitScale) },
          token_bias: bias,
        },
        { token: null, confidence: null, ...(logits ? { logits: null } : {}) },
        { copies: cache.copies(store), signal },
      )
      cache.append(store)
      // Rounding may put a probability just above 1.
      const confidence = Array.from(outputs.confidence.data as Float32Array, (p) => Math.min(p, 1))
      if (confidence.some(Number.isNaN))
        throw new UserError(
          'the model predicts values that are not numbers: its weights are broken or diverged in training',
        )
      return {
        tokens: Array.from(outputs.token.data, Number),
        confidence,
        logits: outputs.logits?.data as Float32Array | undefined,
      }
    },
    async dispose() {
      await session.release()
      await executor.free(bias.resident)
    },
  }
}

const int64 = (shape: readonly number[], values: readonly number[]): TensorData => ({
  dtype: 'int64',
  shape,
  data: BigInt64Array.from(values, BigInt),
})
