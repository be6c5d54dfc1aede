// Sums of inputs of the tiny model's matrices, against what a few of them are computed from alone.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { load } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import type { ModelConfig } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { type Calibration, type CalibrationOptions, calibrate } from './gptq-calibration.ts'
import { tinyModel } from './quickstart.ts'

const folder = mkdtempSync(join(tmpdir(), 'unmask-calibration-'))
afterAll(() => rmSync(folder, { recursive: true }))
const text = join(folder, 'text.jsonl')
const texts = Array.from({ length: 9 }, (_, i) => `reverse(abc${'d'.repeat(i)})=${'d'.repeat(i)}cba`)
writeFileSync(text, texts.map((text) => `${JSON.stringify({ text })}\n`).join(''))

const loaded = await load(tinyModel)
const { tokenizer } = loaded
const eos = tokenizer.eosTokenId!
const documents = texts.map((text) => [...tokenizer.encode(text), eos])
const tokens = documents.flat().length
const weight = (name: string) => loaded.parameters.get(name)!.data
const width = loaded.model.dimensions.hiddenSize
const layer = (i: number, name: string) => `model.layers.${i}.${name}.weight`

const diffusion = { mask_token_id: 1, block_size: 8 }
async function withCalibration<T>(
  use: (calibration: Calibration) => Promise<T>,
  {
    config = {},
    values = {},
    ...options
  }: Partial<CalibrationOptions> & { config?: object; values?: Record<string, Float32Array> } = {},
): Promise<T> {
  const model = createModel({ ...loaded.model.config, ...config } as ModelConfig)
  const read = async (name: string) => (values[name] ?? weight(name)).slice()
  const calibration = await calibrate({ model, tokenizer }, read, {
    paths: [text],
    tokens: 1e6,
    template: 'none',
    threads: 1,
    ...options,
  })
  try {
    return await use(calibration)
  } finally {
    await calibration.dispose()
  }
}

/** How many rows were summed: those of x are of root mean square 1, or a little less, before the norm's weight. */
const rowsOf = (gram: Float32Array, norm: string): number =>
  Math.round(weight(norm).reduce((sum, scale, i) => sum + gram[i * (width + 1)] / scale ** 2, 0) / width)

describe('a sum of inputs', () => {
  it('is that of the text, which the first projections show', async () => {
    const gram = await withCalibration((calibration) => calibration.gram(layer(0, 'self_attn.q_proj')))
    const expected = new Float64Array(width * width)
    for (const id of documents.flat()) {
      const e = weight('model.embed_tokens.weight').subarray(id * width, (id + 1) * width)
      const size = Math.sqrt(e.reduce((sum, value) => sum + value ** 2, 0) / width + 1e-5)
      const x = e.map((value, i) => (value / size) * weight('model.layers.0.input_layernorm.weight')[i])
      for (let i = 0; i < width; i++) for (let j = 0; j < width; j++) expected[i * width + j] += x[i] * x[j]
    }
    const largest = Math.max(...expected)
    for (let i = 0; i < expected.length; i++) expect(Math.abs(gram![i] - expected[i])).toBeLessThan(1e-5 * largest)
  })

  it('counts each token once, and each prediction, whatever the padding', async () => {
    await withCalibration(async (calibration) => {
      for (const i of [0, 3])
        expect(
          rowsOf((await calibration.gram(layer(i, 'self_attn.k_proj')))!, `model.layers.${i}.input_layernorm.weight`),
        ).toBe(tokens)
      const predicted = rowsOf((await calibration.gram('model.embed_tokens.weight'))!, 'model.norm.weight')
      expect(predicted).toBe(tokens - documents.length)
    })
  })

  it('counts the noised copy and the clean one of a diffusion model', async () => {
    await withCalibration(
      async (calibration) => {
        for (const i of [0, 2])
          expect(
            rowsOf(
              (await calibration.gram(layer(i, 'mlp.up_proj')))!,
              `model.layers.${i}.post_attention_layernorm.weight`,
            ),
          ).toBe(2 * tokens)
        const predicted = rowsOf((await calibration.gram('model.embed_tokens.weight'))!, 'model.norm.weight')
        expect(predicted).toBeGreaterThan(0)
        expect(predicted).toBeLessThan(tokens)
      },
      { config: diffusion },
    )
  })

  it.each([{}, diffusion])('follows weights that were replaced: %o', async (config) => {
    const changed = ['model.embed_tokens.weight', layer(0, 'self_attn.v_proj'), layer(1, 'mlp.down_proj')]
    const values = Object.fromEntries(
      changed.map((name, i) => {
        const noise = random(i).fillNormal(new Float32Array(weight(name).length))
        return [name, weight(name).map((value, j) => value + 0.02 * noise[j])]
      }),
    )
    const wanted = [layer(1, 'mlp.gate_proj'), layer(3, 'mlp.down_proj')]
    const sums = async (calibration: Calibration) => {
      const grams: (Float32Array | undefined)[] = []
      for (const name of wanted) grams.push(await calibration.gram(name))
      return grams
    }
    const expected = await withCalibration(sums, { config, values })
    const before = await withCalibration(sums, { config })
    const replaced = await withCalibration(
      async (calibration) => {
        const grams: (Float32Array | undefined)[] = []
        for (const name of loaded.model.parameters.keys()) {
          if (wanted.includes(name)) grams.push(await calibration.gram(name))
          else if (changed.includes(name)) await calibration.gram(name)
          if (name in values) await calibration.replace(name, values[name].slice())
        }
        return grams
      },
      { config },
    )
    for (const [i, gram] of replaced.entries()) {
      expect(gram).toEqual(expected[i])
      expect(gram).not.toEqual(before[i])
    }
  })

  it('gives the squares of the products with a matrix', async () => {
    await withCalibration(async (calibration) => {
      const name = layer(1, 'self_attn.o_proj')
      const gram = (await calibration.gram(name))!
      const matrix = weight(name)
      let expected = 0
      for (let row = 0; row < width; row++)
        for (let i = 0; i < width; i++)
          for (let j = 0; j < width; j++)
            expected += matrix[row * width + i] * gram[i * width + j] * matrix[row * width + j]
      expect((await calibration.outputSquares(name, matrix)) / expected).toBeCloseTo(1, 4)
    })
  })
})
