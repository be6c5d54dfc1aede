// Writes a model as a browser loads it: a model folder whose weights are in small shards, and a manifest with the hash of every
// file, so that each is fetched, checked and kept by itself.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { manifestFile, writeManifest } from '../browser/manifest.ts'
import { writeTextAtomically } from '../checkpoint/file.ts'
import { openCheckpoint, writeCheckpoint } from '../checkpoint/index.ts'
import { checkTensors } from '../checkpoint/load.ts'
import { createModel } from '../models/index.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { storedTensors } from './quantize.ts'

/** A download that stops goes on at the shard where it stopped; a tensor that is larger has one of its own. */
const SHARD_BYTES = 8 << 20

/**
 * Writes the model at `source` into `folder`, which exists and is empty; `name` is what people call it. `onChecked` is called
 * before the first write. Returns the bytes of all files. Throws UserError where the source is no model that can be run.
 */
export async function writeWebModel(
  source: string,
  folder: string,
  name: string,
  onChecked: () => void = () => undefined,
): Promise<number> {
  const checkpoint = await openCheckpoint(source)
  try {
    const model = createModel(checkpoint.config)
    checkTensors(checkpoint, model)
    const { config, generationConfig } = checkpoint
    const parameters = storedTensors(checkpoint, model.parameters)
    const tokenizerFiles = await checkpoint.tokenizerFiles()
    loadTokenizer(tokenizerFiles)
    onChecked()
    await writeCheckpoint(folder, {
      ...{ config, parameters, tokenizerFiles, generationConfig, maxShardBytes: SHARD_BYTES },
    })
  } finally {
    await checkpoint.close()
  }
  const files = []
  // The small ones first: what is wrong with them is known early.
  for (const path of (await readdir(folder)).sort(
    (a, b) => Number(/\.safetensors$/.test(a)) - Number(/\.safetensors$/.test(b)),
  )) {
    // The shards' headers say all that the index says.
    if (path.endsWith('.index.json')) continue
    const bytes = await readFile(join(folder, path))
    files.push({ path, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') })
  }
  await writeTextAtomically(join(folder, manifestFile), writeManifest(name, files))
  return files.reduce((sum, { bytes }) => sum + bytes, 0)
}
