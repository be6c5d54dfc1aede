// Exporting: the folder is a model of its own, and model.onnx finds its weights beside it.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { InferenceSession } from 'onnxruntime-node'
import { expect, test } from 'vitest'
import { exportModel } from './export.ts'
import { load } from './load.ts'
import { quantize } from './quantize.ts'
import { endTokens } from './tokenizer/end-tokens.ts'

const tiny = fileURLToPath(new URL('../models/tiny', import.meta.url))

test.each(['float32', '4 bits', '4 bits with minima'])(
  'model.onnx runs in plain onnxruntime, its weights in %s',
  async (kind) => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-export-'))
    try {
      const model = kind === 'float32' ? tiny : join(folder, 'quantized')
      if (kind !== 'float32') await quantize({ model: tiny, out: model, bits: 4, minima: kind.endsWith('minima') })
      const out = join(folder, 'onnx')
      const { files, inputs } = await exportModel({ model, out })
      expect(files).toContain('model.safetensors')
      const session = await InferenceSession.create(join(out, 'model.onnx'))
      expect([...session.inputNames].sort()).toEqual(inputs.map(({ name }) => name).sort())
      const card = await readFile(join(out, 'README.md'), 'utf8')
      for (const name of ['input_ids', 'past_key.0', 'token', 'present_value.0']) expect(card).toContain(`| ${name} |`)
      if (kind === 'float32') {
        const before = await load(tiny)
        const { config } = (await load(out)).model
        // The examples read all of them from there.
        expect(config).toEqual({ ...before.model.config, eos_token_id: endTokens(before) })
        expect(config.eos_token_id).toEqual([256, 258])
      }
      await session.release()
    } finally {
      await rm(folder, { recursive: true })
    }
  },
)

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
