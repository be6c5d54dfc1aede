import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { findFiles } from './files.ts'

let root = ''

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'unmask-files-'))
  for (const folder of ['a', 'a/b', '.hidden', 'x[1]']) await mkdir(join(root, folder))
  for (const name of [
    '1.txt',
    '2.JSONL',
    'README.md',
    'a/3.parquet',
    'a/b/4.ndjson',
    'a/b/5.txt',
    '.hidden/6.txt',
    'x[1]/7.txt',
  ]) {
    await writeFile(join(root, name), name)
  }
})

const find = async (path: string) =>
  (await findFiles(join(root, path))).map((file) => relative(root, file.path).replaceAll('\\', '/'))

test.each([
  ['', ['1.txt', '2.JSONL', 'a/3.parquet', 'a/b/4.ndjson', 'a/b/5.txt', 'x[1]/7.txt']],
  ['a', ['a/3.parquet', 'a/b/4.ndjson', 'a/b/5.txt']],
  ['1.txt', ['1.txt']],
  ['*.txt', ['1.txt']],
  ['**/*.txt', ['1.txt', 'a/b/5.txt', 'x[1]/7.txt']],
  ['a/**', ['a/3.parquet', 'a/b/4.ndjson', 'a/b/5.txt']],
  ['a/b/?.{txt,jsonl}', ['a/b/5.txt']],
  ['a/*/4.*', ['a/b/4.ndjson']],
  ['x[1]/*.txt', ['x[1]/7.txt']],
])('%s', async (path, expected) => {
  expect(await find(path)).toEqual(expected)
})

test('gives size and format', async () => {
  expect(await findFiles(join(root, '2.JSONL'))).toEqual([{ path: join(root, '2.JSONL'), size: 7, format: 'jsonl' }])
})

test.each([
  ['README.md', /unknown type of data/],
  ['nowhere.txt', /no such file or folder/],
  ['*.parquet', /no \.txt, \.jsonl, \.ndjson or \.parquet file found/],
  ['nowhere/*.txt', /no \.txt/],
])('%s is refused', async (path, message) => {
  await expect(find(path)).rejects.toThrow(UserError)
  await expect(find(path)).rejects.toThrow(message)
})
