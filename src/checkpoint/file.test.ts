import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { describeFileError, makeFolder, readText, writeAtomically, writeTextAtomically } from './file.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-file-'))
  await writeFile(join(folder, 'file'), '')
})
afterEach(() => rm(folder, { recursive: true }))

const errorOf = (promise: Promise<unknown>): Promise<unknown> => promise.then(() => undefined).catch((error) => error)

describe('an error of the file system is one line that names the path', () => {
  it('of reading and writing', async () => {
    const file = join(folder, 'file')
    const cases: [Promise<unknown>, string][] = [
      [readFile(join(folder, 'none')), `${folder}/none: no such file or folder`],
      [readFile(join(file, 'x')), `${file}/x: a part of the path is a file, not a folder`],
      [writeFile(folder, ''), `${folder}: it is a folder`],
      [mkdir(file), `${file}: exists already`],
      [open(join(folder, `.x.${'0a'.repeat(6)}.tmp`, 'model')), `${folder}/x/model: no such file or folder`],
    ]
    // All are awaited at once: a rejection that nobody awaits yet would end the process.
    const errors = await Promise.all(cases.map(([promise]) => errorOf(promise)))
    for (const [i, [, message]] of cases.entries()) expect(describeFileError(errors[i])).toBe(message)
  })

  it.skipIf(process.platform !== 'linux')('of a full disk', async () => {
    const error = await errorOf(writeFile('/dev/full', 'x'))
    expect(describeFileError(error, 'a')).toBe('a: no space left on the disk')
  })

  it('but not one of another kind', async () => {
    for (const error of [new Error('x'), new TypeError('fetch failed'), 'text', undefined])
      expect(describeFileError(error)).toBeUndefined()
    expect(describeFileError(await errorOf(fetch('http://127.0.0.1:9')))).toBeUndefined()
  })
})

describe('writing', () => {
  it('leaves nothing behind and names the file where it fails', async () => {
    await expect(writeTextAtomically(join(folder, 'none', 'a'), 'x')).rejects.toThrow(
      `${folder}/none/a: no such file or folder`,
    )
    await mkdir(join(folder, 'taken', 'full'), { recursive: true })
    await expect(writeTextAtomically(join(folder, 'taken'), 'x')).rejects.toThrow(/taken: it is a folder/)
    const failed = writeAtomically(join(folder, 'b'), async (sink) => {
      await sink(new Uint8Array(3))
      throw new Error('of the caller')
    })
    await expect(failed).rejects.toThrow('of the caller')
    expect((await readdir(folder)).sort()).toEqual(['file', 'taken'])
  })

  it('makes folders and says what is in the way', async () => {
    expect(await makeFolder(join(folder, 'a', 'b'))).toBe(true)
    expect(await makeFolder(join(folder, 'a', 'b'))).toBe(false)
    const inside = await errorOf(makeFolder(join(folder, 'file', 'x')))
    expect(describeFileError(inside)).toBe(`${folder}/file/x: a part of the path is a file, not a folder`)
    await expect(makeFolder(join(folder, 'file'))).rejects.toThrow(`${folder}/file: is a file; a folder is needed`)
  })

  it('reads text, or says why not', async () => {
    await expect(readText(folder)).rejects.toThrow(/cannot be read: it is not a regular file/)
    await expect(readText(join(folder, 'none'))).rejects.toThrow(/cannot be read: no such file/)
    // To open a pipe would wait for somebody who writes.
    execFileSync('mkfifo', [join(folder, 'pipe')])
    await expect(readText(join(folder, 'pipe'))).rejects.toThrow(/cannot be read: it is not a regular file/)
  })
})
