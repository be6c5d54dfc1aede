// What lies in the folder of a model for browsers: its files, with sizes and hashes. The files themselves are those of any model
// folder: config.json, the tokenizer's, weights as safetensors in shards.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check, describeProblems } from '../formats/check.ts'
import { checkJsonStructure } from '../formats/json.ts'

/** Name of the manifest in the folder. */
export const manifestFile = 'unmask.json'

/** Larger ones are not read. */
const MOST_CHARACTERS = 4 << 20
const MOST_FILES = 10_000

/** A file beside the manifest: no folders, nothing hidden. */
const fileName = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$/

const schema = z.strictObject({
  format: z.literal('unmask-web'),
  version: z.literal(1),
  /** What people call the model. */
  name: z.string().min(1).max(200),
  files: z
    .array(
      z.strictObject({
        path: z.string().regex(fileName, { error: 'expected the name of a file beside the manifest' }),
        bytes: z.number().int().min(0),
        sha256: z.string().regex(/^[0-9a-f]{64}$/, { error: 'expected a SHA-256 hash in hexadecimal' }),
      }),
    )
    .min(1)
    .max(MOST_FILES)
    .readonly(),
})

export type Manifest = z.infer<typeof schema>
export type ManifestFile = Manifest['files'][number]

/** Reads a manifest. Throws UserError that names `where` and what is wrong. */
export function parseManifest(text: string, where: string): Manifest {
  let value: unknown
  try {
    if (text.length > MOST_CHARACTERS) throw new Error(`${text.length} characters are too many`)
    checkJsonStructure(text, 3)
    value = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${where}: not the manifest of a model: ${(error as Error).message}`)
  }
  const result = check(schema, value)
  if ('problems' in result)
    throw new UserError(`${where}: not the manifest of a model: ${describeProblems(result.problems)}`)
  const { data } = result
  const names = new Set(data.files.map(({ path }) => path))
  if (names.size < data.files.length) throw new UserError(`${where}: a file is listed twice`)
  return data
}

export const writeManifest = (name: string, files: readonly ManifestFile[]): string =>
  `${JSON.stringify({ format: 'unmask-web', version: 1, name, files } satisfies Manifest, null, 2)}\n`
