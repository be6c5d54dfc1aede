// A tiny Llama with random weights, batches for it, and a few steps whose weights are hashed. Used by tests only.
import { createHash } from 'node:crypto'
import { random } from '../../src/core/random.ts'
import type { Parameter } from '../../src/core/types.ts'
import { createPacker } from '../../src/data/pack.ts'
import type { Batch } from '../../src/data/types.ts'
import { createModel } from '../../src/models/index.ts'
import { createExecutor } from '../../src/runtime/onnxruntime/executor.ts'
import { createTrainer, type TrainerOptions } from '../../src/train/trainer.ts'

export const model = createModel({
  model_type: 'llama',
  vocab_size: 24,
  hidden_size: 16,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  tie_word_embeddings: true,
})

export function weights(seed = 1): Map<string, Parameter> {
  const all = new Map<string, Parameter>()
  let stream = 0
  for (const [name, shape] of model.parameters) {
    const data = random(seed, stream++).fillNormal(new Float32Array(shape.reduce((a, b) => a * b, 1)))
    all.set(name, { shape, data: data.map((x) => (shape.length === 1 ? 1 + 0.1 * x : 0.2 * x)) })
  }
  return all
}

/** Rows of two documents, the first `split` tokens long. */
export function batch(seed: number, { rows = 2, length = 16, split = 8 } = {}): Batch {
  const draw = random(seed)
  const each = (value: (i: number) => number) => Int32Array.from({ length: rows * length }, (_, i) => value(i % length))
  return {
    rows,
    length,
    ids: each(() => draw.integer(23)),
    documents: each((i) => (i < split ? 0 : 1)),
    positions: each((i) => (i < split ? i : i - split)),
    maskable: new Uint8Array(rows * length).fill(1),
    padding: new Uint8Array(rows * length),
    documentIds: [],
    tokens: rows * length,
    bytes: rows * length,
  }
}

/** Documents of random tokens of the given lengths, each on a block boundary and padded to one, with token 0 as the EOS. */
export function packed(
  seed: number,
  lengths: readonly number[],
  { rows, length, blockSize, prompt = 0 }: { rows: number; length: number; blockSize: number; prompt?: number },
): Batch {
  const packer = createPacker({ rows, length, blockSize, eosId: 0, byteLength: (ids) => ids.length })
  for (const [document, size] of lengths.entries()) {
    if (size === 0) continue
    const draw = random(seed, document)
    const ids = Int32Array.from({ length: size }, (_, i) => (i === size - 1 ? 0 : 1 + draw.integer(22)))
    const maskable = Uint8Array.from(ids, (_, i) => (i < prompt ? 0 : 1))
    if (!packer.place({ id: String(document), ids, maskable })) throw new Error(`no room for document ${document}`)
  }
  return packer.finish()
}

export const options: TrainerOptions = {
  objective: 'diffusion',
  maskTokenId: 23,
  weighting: 'elbo',
  noise: {},
  finalBlockSize: 8,
  seed: 5,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0.01,
  maxGradNorm: 1,
}

/** Three updates with everything random that a step knows; the SHA-256 of the weights and moments. */
export async function hashOfThreeSteps(): Promise<string> {
  const executor = createExecutor({ threads: 2 })
  const trainer = await createTrainer(executor, model, weights(), {
    ...options,
    noise: { copies: 2, complementary: true },
  })
  for (const [step, blockSize] of [4, 8, 16].entries())
    await trainer.step({
      step,
      batches: [batch(step), batch(100 + step)],
      blockSize,
      learningRate: 1e-2,
      embeddingNoise: 0.1,
    })
  const hash = createHash('sha256')
  for (const [name, { data }] of [...(await trainer.parameters()), ...(await trainer.optimizerState()).tensors])
    hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  await executor.dispose()
  return hash.digest('hex')
}
