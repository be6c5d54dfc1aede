// Manifests from outside: hostile until parsed.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { parseManifest, writeManifest } from './manifest.ts'

const file = { path: 'model-00001-of-00002.safetensors', bytes: 12, sha256: 'a'.repeat(64) }

describe('manifest', () => {
  test('is read as it was written', () => {
    expect(parseManifest(writeManifest('tiny', [file]), 'here')).toMatchObject({ name: 'tiny', files: [file] })
  })

  test.each([
    ['{', /here: not the manifest of a model/],
    ['[]', /top level: expected keys/],
    [writeManifest('tiny', []), /files/],
    [writeManifest('tiny', [{ ...file, path: '../secret' }]), /files\.0\.path: expected the name of a file beside/],
    [writeManifest('tiny', [{ ...file, path: 'https://x/y' }]), /files\.0\.path/],
    [writeManifest('tiny', [{ ...file, sha256: 'A' }]), /files\.0\.sha256/],
    [writeManifest('tiny', [{ ...file, bytes: -1 }]), /files\.0\.bytes/],
    [writeManifest('tiny', [file, file]), /listed twice/],
    [writeManifest('tiny', [file]).replace('"version": 1', '"version": 2'), /version/],
  ])('%s is refused', (text, problem) => {
    expect(() => parseManifest(text, 'here')).toThrow(problem)
  })

  test('whatever comes, it is read or refused with a message', () => {
    const valid = writeManifest('tiny', [file])
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc
            .tuple(fc.nat(valid.length), fc.string())
            .map(([at, text]) => valid.slice(0, at) + text + valid.slice(at + 1)),
        ),
        (text) => {
          try {
            parseManifest(text, 'here')
          } catch (error) {
            expect(error).toBeInstanceOf(UserError)
          }
        },
      ),
    )
  })
})
