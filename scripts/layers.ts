// Checks that imports only point down: `npm run lint` runs it. The layers and their order stand in CONTRIBUTING.md, in the
// list under "The layers", one folder of src a line, the highest first; types count as imports too.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** The folders of src in order, the highest first, from the list in CONTRIBUTING.md. */
export function layersOf(document: string): string[] {
  const list = /^## The layers\n[\s\S]*?^```text\n([\s\S]*?)^```$/m.exec(document)?.[1]
  if (list === undefined) throw new Error('CONTRIBUTING.md has no list under "The layers"')
  return list.split('\n').flatMap((line) => /^([a-z]+) {2,}\S/.exec(line)?.[1] ?? [])
}

/** Relative specifiers of imports and exports in a source, static and dynamic, types included. */
export function relativeImports(source: string): string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')
  return [...code.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*'(\.{1,2}\/[^']+)'/g)].map(([, specifier]) => specifier!)
}

/** What is wrong with the imports of files, given by path below src: one line each. */
export function wrongImports(files: ReadonlyMap<string, string>, layers: readonly string[]): string[] {
  const problems: string[] = []
  const layerOf = (path: string) => (path.includes('/') ? path.slice(0, path.indexOf('/')) : undefined)
  for (const [path, source] of files) {
    const from = layerOf(path)
    // The entry points of the package, index.ts and the like, may import everything.
    if (from === undefined) continue
    const rank = layers.indexOf(from)
    if (rank === -1) {
      problems.push(`src/${path}: the folder ${from} is not among the layers in CONTRIBUTING.md`)
      continue
    }
    for (const specifier of relativeImports(source)) {
      const target = normalize(join(dirname(path), specifier))
        .split(sep)
        .join('/')
      const to = target.startsWith('..') ? undefined : layerOf(target)
      if (to === undefined) problems.push(`src/${path}: imports ${specifier}, which is no part of a layer`)
      else if (layers.indexOf(to) < rank) problems.push(`src/${path}: imports ${specifier}; ${to} is above ${from}`)
    }
  }
  return problems
}

function sources(folder: string): Map<string, string> {
  const files = new Map<string, string>()
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/(?<!\.test)\.[jt]s$/.test(entry.name)) continue
    const path = join(entry.parentPath, entry.name)
    files.set(relative(folder, path).split(sep).join('/'), readFileSync(path, 'utf8'))
  }
  return files
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const layers = layersOf(readFileSync(join(root, 'CONTRIBUTING.md'), 'utf8'))
  const problems = wrongImports(sources(join(root, 'src')), layers)
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) process.exitCode = 1
}
