// What tests run of the build, as users do; build.ts makes it before all tests.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const root = join(import.meta.dirname, '..')

/** The file that node runs as `unmask`. */
export const command = join(root, 'bin/unmask.js')

/** A module of the build, named by its path in `src` without the ending. */
export const fromBuild = (module: string): Promise<unknown> =>
  import(/* @vite-ignore */ pathToFileURL(join(root, 'dist', `${module}.js`)).href)
