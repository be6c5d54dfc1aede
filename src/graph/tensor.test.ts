// What a wrong graph says: the operation, the shapes and the place in the model.
import { describe, expect, it } from 'vitest'
import { createModel } from '../models/index.ts'
import { createWeights } from '../nn/weights.ts'
import { adamw } from './ops/adamw.ts'
import { blockDiffusionAttention } from './ops/attention/block-diffusion.ts'
import { cachedAttention, storeInCache } from './ops/attention/cached.ts'
import { cachedAttentionBias, rowBias, tileBias } from './ops/attention/masks.ts'
import { attention } from './ops/attention/tiled.ts'
import { crossEntropy } from './ops/cross-entropy.ts'
import { add, mul } from './ops/elementwise.ts'
import { input } from './ops/input.ts'
import { concat, expand, gatherRows, reshape, scatterAddRows, slice } from './ops/layout.ts'
import { linear, matmul } from './ops/linear.ts'
import { predict } from './ops/predict.ts'
import { sum } from './ops/reduce.ts'
import { rmsNorm } from './ops/rms-norm.ts'
import { rope } from './ops/rope.ts'
import { swiglu } from './ops/swiglu.ts'
import type { Shape } from './shape.ts'
import { scope, type Tensor, TraceError } from './tensor.ts'

const float = (...shape: Shape): Tensor => input('x', 'float32', shape)
const whole = (...shape: Shape): Tensor => input('i', 'int64', shape)

const mistakes: Record<string, [operation: string, build: () => unknown, why: RegExp]> = {
  'shapes that do not broadcast': [
    'add',
    () => add(float(2, 3), float(4)),
    /add\(float32\[2, 3\], float32\[4\]\).*do not broadcast/,
  ],
  'two symbolic sizes': ['mul', () => mul(float('N'), float('M')), /\[N\] and \[M\] do not broadcast/],
  'two types': ['add', () => add(float(2), whole(2)), /add\(float32\[2\], int64\[2\]\).*types differ/],
  'a reshape that loses values': ['reshape', () => reshape(float(2, 3), [4]), /cannot become \[4\]/],
  'a reshape that infers two sizes': [
    'reshape',
    () => reshape(float('N', 'M'), ['M', 'N']),
    /more than one dimension would be inferred/,
  ],
  'an expansion of an axis above 1': ['expand', () => expand(float(2), [3]), /does not broadcast to \[3\]/],
  'an expansion to an unknown size': ['expand', () => expand(float(1), ['N']), /symbolic/],
  'a slice past the end': ['slice', () => slice(float(4), 0, 2, 5), /no range 2\.\.5 on axis 0/],
  'a slice of a symbolic axis': ['slice', () => slice(float('N'), 0, 0, 1), /no range/],
  'a slice of no axis': ['slice', () => slice(float(4), 1, 0, 1), /no range/],
  'an empty slice': ['slice', () => slice(float(4), 0, 2, 2), /no range/],
  'a concatenation of unequal rows': ['concat', () => concat([float(2, 3), float(2, 4)], 0), /differ elsewhere/],
  'a concatenation of unequal ranks': ['concat', () => concat([float(2, 3), float(2)], 0), /differ elsewhere/],
  'a concatenation along no axis': ['concat', () => concat([float(2), float(2)], 1), /no axis 1/],
  'a float index': ['gatherRows', () => gatherRows(float(3, 2), float(2)), /index must be int32 or int64/],
  'a scalar without rows': ['gatherRows', () => gatherRows(float(), whole(2)), /scalar has no rows/],
  'scattered rows of another width': [
    'scatterAddRows',
    () => scatterAddRows([4, 3], whole(2), float(2, 2)),
    /the rows must be \[2, 3\]/,
  ],
  'scattered rows into another base': [
    'scatterAddRows',
    () => scatterAddRows([4, 3], whole(2), float(2, 3), float(5, 3)),
    /the base must be \[4, 3\]/,
  ],
  'a float index to scatter': [
    'scatterAddRows',
    () => scatterAddRows([4, 3], float(2), float(2, 3)),
    /index must be int32 or int64/,
  ],
  'inner sizes': ['matmul', () => matmul(float(2, 3), float(4, 5)), /inner sizes 3 and 4 differ/],
  'inner sizes, transposed': [
    'matmul',
    () => matmul(float(2, 3), float(4, 2), { transposeB: true }),
    /inner sizes 3 and 2 differ/,
  ],
  'batch sizes': ['matmul', () => matmul(float(2, 2, 3), float(4, 3, 2)), /batch sizes \[2\] and \[4\] differ/],
  'a vector as matrix': ['matmul', () => matmul(float(3), float(3)), /rank of at least 2/],
  'integer matrices': ['matmul', () => matmul(whole(2, 2), whole(2, 2)), /must be float32/],
  'a weight for another width': [
    'linear',
    () => linear(float(5, 3), float(4, 2)),
    /linear\(float32\[5, 3\], float32\[4, 2\]\).*last size 3 is not the weight's 2/,
  ],
  'a bias for another width': ['linear', () => linear(float(5, 3), float(4, 3), float(3)), /bias must be \[4\]/],
  'an integer input': ['linear', () => linear(whole(5, 3), float(4, 3)), /must be float32/],
  'a sum over no axis': ['sum', () => sum(float(2), [1]), /no axis 1 in \[2\]/],
  'a norm weight of another width': ['rmsNorm', () => rmsNorm(float(2, 3), float(2), 1e-6), /weight must be \[3\]/],
  'gate and up': ['swiglu', () => swiglu(float(2, 3), float(2, 4)), /same shape/],
  'positions of another length': [
    'rope',
    () => rope(float(1, 4, 8), whole(1, 3), float(9, 2), float(9, 2), 2),
    /positions must be \[1, 4\]/,
  ],
  'tables of another head size': [
    'rope',
    () => rope(float(1, 4, 8), whole(1, 4), float(9, 3), float(9, 3), 2),
    /cos and sin must be \[positions, R\/2\] with R up to 4 for 2 heads/,
  ],
  'float labels': [
    'crossEntropy',
    () => crossEntropy(float(3, 4), float(7, 4), float(3), float(3)),
    /labels must be int64/,
  ],
  'a head of another width': [
    'crossEntropy',
    () => crossEntropy(float(3, 4), float(7, 5), whole(3), float(3)),
    /head \[vocabulary, H\]/,
  ],
  'loss weights of another length': [
    'crossEntropy',
    () => crossEntropy(float(3, 4), float(7, 4), whole(3), float(2)),
    /weights must be one per position/,
  ],
  'heads that do not divide': [
    'attention',
    () => attention(float(1, 4, 8), float(1, 4, 8), float(1, 4, 8), { copies: 1, tile: 4 }, { heads: 3, kvHeads: 1 }),
    /3 query heads and 1 key heads do not fit/,
  ],
  'tiles that do not divide': [
    'attention',
    () => attention(float(1, 4, 8), float(1, 4, 8), float(1, 4, 8), { copies: 1, tile: 3 }, { heads: 2, kvHeads: 2 }),
    /tiles of 3 do not divide the length 4/,
  ],
  'copies that do not divide': [
    'attention',
    () => attention(float(3, 4, 8), float(3, 4, 8), float(3, 4, 8), { copies: 2, tile: 4 }, { heads: 2, kvHeads: 2 }),
    /2 copies do not divide the batch of 3/,
  ],
  'a bias of another length': [
    'attention',
    () =>
      attention(
        float(1, 4, 8),
        float(1, 4, 8),
        float(1, 4, 8),
        { copies: 1, tile: 4, tileBias: float(1, 1, 1, 1, 1, 4, 5) },
        { heads: 2, kvHeads: 2 },
      ),
    /tile bias must broadcast to \[1, 1, 1, 1, 1, 4, 4\]/,
  ],
  'a bias for a context of another length': [
    'attention',
    () => {
      const x = float(2, 4, 8)
      const context = { copy: 1, bias: float(1, 1, 1, 1, 1, 4, 5) }
      return attention(x, x, x, { copies: 2, tile: 4, context }, { heads: 2, kvHeads: 2 })
    },
    /context bias must broadcast to \[1, 1, 1, 1, 1, 4, 4\]/,
  ],
  'a context of no copy': [
    'attention',
    () => {
      const x = float(2, 4, 8)
      const context = { copy: 2, bias: float(1, 1, 1, 1, 1, 4, 4) }
      return attention(x, x, x, { copies: 2, tile: 4, context }, { heads: 2, kvHeads: 2 })
    },
    /there is no copy 2/,
  ],
  'a symbolic length': [
    'attention',
    () => {
      const x = float(1, 'L', 8)
      return attention(x, x, x, { copies: 1, tile: 4 }, { heads: 2, kvHeads: 2 })
    },
    /batch and the length must be static/,
  ],
  'groups that do not divide': [
    'blockDiffusionAttention',
    () => {
      const x = float(2, 32, 8)
      const mask = { copies: 2, tile: 16, tilesPerGroup: 3, blockSize: 16, blocks: float(1, 2, 96, 3), keyColumns: [] }
      return blockDiffusionAttention(x, x, x, mask, { heads: 2, kvHeads: 2 })
    },
    /groups of 3 tiles of 16 do not divide the length 32/,
  ],
  'key columns for another width': [
    'blockDiffusionAttention',
    () => {
      const x = float(2, 32, 8)
      const mask = { copies: 2, tile: 16, tilesPerGroup: 1, blockSize: 16, blocks: float(1, 2, 32, 1) }
      return blockDiffusionAttention(x, x, x, { ...mask, keyColumns: [float(1, 2, 15, 1)] }, { heads: 2, kvHeads: 2 })
    },
    /the key columns must be \[1, 2, 16, 1\]/,
  ],
  'keys of another head size': [
    'cachedAttention',
    () => {
      const [keys, values] = [float(1, 9, 8), float(1, 9, 6)]
      return cachedAttention(float(1, 3, 16), { keys, values, bias: float(1, 1, 3, 9) }, 2)
    },
    /must both be \[1, C, 8\]/,
  ],
  'a bias for other queries': [
    'cachedAttention',
    () => {
      const keys = float(1, 9, 8)
      return cachedAttention(float(1, 3, 16), { keys, values: keys, bias: float(1, 1, 6, 9) }, 2)
    },
    /bias must be \[1, 1, 3, 9\]/,
  ],
  'an update that the cache has no room for': [
    'storeInCache',
    () => storeInCache(float(2, 9, 4), whole(2, 3, 2), float(2, 3, 6)),
    /the update \[2, T, 4\]/,
  ],
  'documents and positions': [
    'maskBias',
    () => tileBias('document', { positions: whole(1, 4), documents: whole(1, 5), blockSize: whole(), tile: 4 }),
    /must both be \[rows, length\]/,
  ],
  'a block size that is no scalar': [
    'maskBias',
    () => rowBias('same-block', { positions: whole(1, 4), documents: whole(1, 4), blockSize: whole(1), tile: 4 }),
    /block size must be a scalar/,
  ],
  'lengths that are no vector': [
    'cachedAttentionBias',
    () => cachedAttentionBias(whole(1, 3), whole(1, 3), whole(), float(1, 9, 4)),
    /lengths must be \[1\]/,
  ],
  'logits that are no matrix': ['predict', () => predict(float(4), float(4), float()), /\[positions, vocabulary\]/],
  'moments of another size': [
    'adamw',
    () => {
      const flat = float(2, 8)
      const coefficients = { gradientScale: float(), decay: float(), stepSize: float(), epsilon: float() }
      return adamw(flat, flat, float(2, 4), flat, coefficients, { beta1: 0.9, beta2: 0.999 })
    },
    /must have one shape/,
  ],
}

describe('a wrong graph', () => {
  for (const [mistake, [operation, build, why]] of Object.entries(mistakes))
    it(`${operation}: ${mistake}`, () => {
      const traced = () => scope('model', () => scope('layers.3', build))
      expect(traced).toThrow(TraceError)
      expect(traced).toThrow(why)
      expect(traced).toThrow(`${operation}(`)
      expect(traced).toThrow(' in model.layers.3: ')
    })

  it('leaves the scope as it was', () => {
    expect(() => scope('a', () => add(float(2), float(3)))).toThrow(' in a: ')
    expect(() => add(float(2), float(3))).toThrow(/^add\(float32\[2\], float32\[3\]\): /)
  })

  it('in a model names the layer', () => {
    const model = createModel({
      model_type: 'llama',
      vocab_size: 8,
      hidden_size: 8,
      intermediate_size: 16,
      num_hidden_layers: 2,
      num_attention_heads: 2,
    })
    const shapes = new Map(model.parameters).set('model.layers.1.mlp.up_proj.weight', [15, 8])
    const trace = () =>
      model.trace(createWeights(shapes), {
        ids: whole(1, 4),
        positions: whole(1, 4),
        positionCount: 4,
        attention: (q) => q,
      })
    expect(trace).toThrow('swiglu(float32[1, 4, 16], float32[1, 4, 15]) in model.layers.1.mlp: ')
  })
})
