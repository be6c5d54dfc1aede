// Adapters beside Python's peft, where the environment names a Python that has it: UNMASK_PYTHON=FILE.
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Child, startChild } from '../bench/child.ts'
import { saveModelAdapter } from '../src/checkpoint/adapter.ts'
import { saveCheckpoint } from '../src/checkpoint/index.ts'
import { load } from '../src/checkpoint/load.ts'
import { tinyModel } from '../src/checkpoint/names.ts'
import { random } from '../src/core/random.ts'
import { mergeAdapter } from '../src/jobs/merge-adapter.ts'
import { defaultTargetModules, initialLora, initialMagnitudes, isMagnitude, loraShapes } from '../src/models/lora.ts'

const python = process.env.UNMASK_PYTHON ?? ''

function hasPeft(): boolean {
  try {
    const found = 'from importlib.util import find_spec as f; exit(not all(map(f, ["peft", "torch", "transformers"])))'
    execFileSync(python, ['-c', found], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

describe.skipIf(python === '' || !hasPeft())('beside peft', () => {
  let folder: string
  let base: string
  let peft: Child | undefined
  const check = (...args: string[]) => peft!.ask<{ changed: number }>(JSON.stringify(args))
  beforeAll(async () => {
    peft = await startChild(python, ['scripts/check_peft.py', '--lines'])
    folder = await mkdtemp(join(tmpdir(), 'unmask-peft-'))
    base = join(folder, 'base')
    const { model, parameters, tokenizer } = await load(tinyModel)
    await saveCheckpoint(base, { config: model.config, parameters, tokenizerFiles: tokenizer.files() })
  }, 300_000)
  afterAll(async () => {
    await peft?.close()
    await rm(folder, { recursive: true, force: true })
  })

  it.each([false, true])(
    'an adapter of unmask gives the same logits (DoRA: %s)',
    { timeout: 300_000 },
    async (dora) => {
      const loaded = await load(base)
      const targetModules = defaultTargetModules(loaded.model)
      const shapes = loraShapes(loaded.model, { rank: 4, targetModules, dora, maskEmbedding: false })
      const magnitudes = await initialMagnitudes(shapes, loaded.parameters)
      const parameters = new Map([...initialLora(shapes, undefined, 3), ...magnitudes])
      for (const [name, { data }] of parameters) {
        if (name.includes('lora_B'))
          data.set(
            random(1, 2)
              .fillNormal(data)
              .map((x) => x / 4),
          )
        if (isMagnitude(name)) data.set(data.map((length, i) => length * (1 + (i % 5) / 20)))
      }
      const adapter = join(folder, `adapter-${dora}`)
      const config = { rank: 4, alpha: 8, targetModules, dora, base, modelConfig: {} }
      await saveModelAdapter(adapter, { config, parameters })
      const merged = join(folder, `merged-${dora}`)
      await mergeAdapter({ adapter, out: merged })
      const result = await check(base, adapter, merged)
      expect(result.changed).toBeGreaterThan(1e-2)
    },
  )

  it.each([false, true])('an adapter of peft gives the same logits (DoRA: %s)', { timeout: 300_000 }, async (dora) => {
    const adapter = join(folder, `from-peft-${dora}`)
    await check('--write', base, adapter, ...(dora ? ['--dora'] : []))
    const merged = join(folder, `from-peft-merged-${dora}`)
    await mergeAdapter({ adapter, out: merged })
    await check(base, adapter, merged)
  })
})
