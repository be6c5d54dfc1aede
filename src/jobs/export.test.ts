// Exporting: the folder is a model of its own, and model.onnx decodes as the library does.
import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { load, loadForInference } from '../checkpoint/load.ts'
import { packaged } from '../checkpoint/names.ts'
import { UserError } from '../core/types.ts'
import { complete } from '../decode/index.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createGenerator, type GenerateSettings } from '../text/generator.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import { exportModel } from './export.ts'
import { exportWeb } from './export-web.ts'
import { quantize } from './quantize.ts'

const tiny = fileURLToPath(new URL('../../models/tiny', import.meta.url))
const example = fileURLToPath(new URL('../../examples/onnx/generate.mjs', import.meta.url))
const PROMPT = 'reverse(stone)='
const MASK = 1

describe('model.onnx', () => {
  let folder: string
  let diffusion: string
  let executor: Executor
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'unmask-export-'))
    executor = createExecutor({ threads: 1 })
    // Not trained as one, which matters to nothing here.
    diffusion = join(folder, 'diffusion')
    await mkdir(diffusion)
    for (const name of await readdir(tiny, { withFileTypes: true }))
      if (name.isFile()) await copyFile(join(tiny, name.name), join(diffusion, name.name))
    const config = JSON.parse(await readFile(join(tiny, 'config.json'), 'utf8'))
    await writeFile(
      join(diffusion, 'config.json'),
      JSON.stringify({ ...config, mask_token_id: MASK, block_size: 8, same_token_labels: false }),
    )
  })
  afterAll(async () => {
    await executor.dispose()
    await rm(folder, { recursive: true })
  })

  /** What the library writes with the weights of a folder. */
  async function decode(model: string, settings: GenerateSettings): Promise<{ prompt: number[]; ids: number[] }> {
    const loaded = await loadForInference(model)
    const generator = await createGenerator(executor, loaded)
    const prompt = loaded.tokenizer.encode(PROMPT)
    const { ids } = await complete(generator.generate(prompt, settings))
    await generator.dispose()
    return { prompt, ids }
  }

  /** What plain onnxruntime predicts at `rows` of a text, without a cache, by the inputs that the card describes. */
  async function predict(session: InferenceSession, ids: number[], rows: number[], blockSize: number) {
    const { config, dimensions } = (await load(tiny)).model
    const int64 = (values: number[], shape: number[]) => new Tensor('int64', BigInt64Array.from(values, BigInt), shape)
    const floats = (shape: number[], fill = 0) => {
      const data = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(fill)
      return new Tensor('float32', data, shape)
    }
    const each = (value: (i: number) => number) =>
      int64(
        ids.map((_, i) => value(i)),
        [1, ids.length],
      )
    const feeds: Record<string, Tensor> = {
      input_ids: each((i) => ids[i]),
      position_ids: each((i) => i),
      block_ids: each((i) => Math.floor(i / blockSize)),
      block_ends: each(() => 2 ** 31),
      cache_length: int64([0], [1]),
      row_index: int64(rows, [rows.length]),
      logit_scale: floats([rows.length], 1),
      token_bias: floats([Number(config.vocab_size)]),
    }
    if (blockSize > 1) feeds.token_bias.data[MASK] = Number.NEGATIVE_INFINITY
    for (let layer = 0; layer < dimensions.layers; layer++)
      for (const name of ['past_key', 'past_value'])
        feeds[`${name}.${layer}`] = floats([1, ids.length, dimensions.kvHeads * dimensions.headDim])
    const { token, confidence } = await session.run(feeds, ['token', 'confidence'])
    return {
      tokens: Array.from(token.data as BigInt64Array, Number),
      confidence: [...(confidence.data as Float32Array)],
    }
  }

  const kinds = [
    ['float32', undefined],
    ['4 bits', { bits: 4 }],
    ['4 bits with offsets', { bits: 4, offsets: true }],
  ] as const

  test.each(kinds)('writes what the autoregressive model writes, its weights in %s', async (kind, quantised) => {
    const model = quantised ? join(folder, `ar ${kind}`) : tiny
    if (quantised) await quantize({ model: tiny, out: model, ...quantised })
    const out = join(folder, `ar ${kind} onnx`)
    await exportModel({ model, out })
    const { prompt, ids } = await decode(model, { maxNewTokens: 8 })
    expect(ids.length).toBeGreaterThan(4)
    const session = await InferenceSession.create(join(out, 'model.onnx'), { intraOpNumThreads: 1 })
    const text = [...prompt]
    for (const id of ids) {
      // Two rows: a matrix product of one is computed by other means.
      const { tokens } = await predict(session, text, [text.length - 2, text.length - 1], 1)
      expect(tokens[1]).toBe(id)
      text.push(id)
    }
    await session.release()
  })

  test.each(kinds)('writes what the diffusion model writes, its weights in %s', async (kind, quantised) => {
    const model = quantised ? join(folder, `diffusion ${kind}`) : diffusion
    if (quantised) await quantize({ model: diffusion, out: model, ...quantised })
    const out = join(folder, `diffusion ${kind} onnx`)
    const { files } = await exportModel({ model, out })
    expect(files).toContain('model.safetensors')
    const settings = { maxNewTokens: 17, strategy: 'threshold', threshold: 0.9, bufferSize: 1 } as const
    const { prompt, ids } = await decode(model, settings)
    const session = await InferenceSession.create(join(out, 'model.onnx'), { intraOpNumThreads: 1 })
    const text = [...prompt]
    while (text.length < prompt.length + ids.length) {
      do text.push(MASK)
      while (text.length % 8 !== 0)
      while (text.includes(MASK)) {
        const masked = text.flatMap((id, i) => (id === MASK ? [i] : []))
        const rows = masked.map((i) => i - 1)
        const { tokens, confidence } = await predict(session, text, rows, 8)
        const best = Math.max(...confidence)
        for (const [j, i] of masked.entries()) if (confidence[j] > 0.9 || confidence[j] === best) text[i] = tokens[j]
      }
    }
    expect(ids.length).toBeGreaterThan(8)
    expect(text.slice(prompt.length, prompt.length + ids.length)).toEqual(ids)
    await session.release()
  })

  test('the example beside it writes what the library writes', async () => {
    const out = join(folder, 'example')
    await exportModel({ model: diffusion, out })
    const settings = { maxNewTokens: 64, strategy: 'threshold', threshold: 0.9, bufferSize: 1 } as const
    const { ids } = await decode(diffusion, settings)
    const { tokenizer } = await load(diffusion)
    const { stdout } = await promisify(execFile)(process.execPath, [example, out, PROMPT])
    const written = tokenizer.decode(ids, { skipSpecialTokens: true })
    expect(written.length).toBeGreaterThan(0)
    expect(stdout.trimEnd().startsWith(written.trimEnd())).toBe(true)
  })

  test('has a card with its inputs, and a folder that is a model', async () => {
    const out = join(folder, 'card')
    const { inputs, outputs } = await exportModel({ model: tiny, out })
    const card = await readFile(join(out, 'README.md'), 'utf8')
    for (const { name } of [...inputs, ...outputs])
      if (!/\.(?!0$)\d+$/.test(name)) expect(card).toContain(`| ${name} |`)
    const before = await load(tiny)
    const { config } = (await load(out)).model
    // The examples read all of them from there.
    expect(config).toEqual({ ...before.model.config, eos_token_id: endTokens(before) })
    expect(config.eos_token_id).toEqual([256, 258])
  })
})

test.each([
  ['onnx', exportModel],
  ['web', exportWeb],
])('a model that cannot be exported to %s is refused before anything is written', async (_, run) => {
  const folder = await mkdtemp(join(tmpdir(), 'unmask-export-'))
  try {
    const phases: string[] = []
    // It has no tokenizer.
    const model = packaged('test', 'golden', 'llama-tied')
    const exporting = run({ model, out: join(folder, 'out'), onPhase: (text) => phases.push(text) })
    await expect(exporting).rejects.toThrow(UserError)
    expect(phases).toEqual([])
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('an export replaces a folder by force alone, and never its model', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'unmask-export-'))
  try {
    const out = join(folder, 'onnx')
    await exportModel({ model: tiny, out })
    await writeFile(join(out, 'README.md'), 'old')
    await writeFile(join(out, 'notes.md'), 'mine')
    await expect(exportModel({ model: tiny, out })).rejects.toThrow('exists already')
    const stop = AbortSignal.abort(new Error('stopped'))
    await expect(exportModel({ model: tiny, out, force: true, signal: stop })).rejects.toThrow('stopped')
    expect(await readFile(join(out, 'README.md'), 'utf8')).toBe('old')
    const { files } = await exportModel({ model: tiny, out, force: true })
    expect(await readFile(join(out, 'README.md'), 'utf8')).toContain('# onnx as ONNX')
    expect(await readdir(out)).toEqual(expect.arrayContaining([...files, 'notes.md']))
    await expect(exportModel({ model: out, out, force: true })).rejects.toThrow('is an input')
    expect(await readdir(folder)).toEqual(['onnx'])
  } finally {
    await rm(folder, { recursive: true })
  }
})
