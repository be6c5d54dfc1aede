// Packs unmask, installs it into an empty project as a dependent would, and uses it there: types, library, command. Checks too that
// what the package's own pages name is in it. `npm run check:package`
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'unmask-package-'))
const app = join(folder, 'app')

/** Without it, onnxruntime-node's install script downloads CUDA libraries on Linux. */
const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip', npm_config_loglevel: 'error' }
const run = (program: string, args: string[], cwd: string): string =>
  execFileSync(program, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

try {
  run('npm', ['pack', '--pack-destination', folder], root)
  const archive = readdirSync(folder).find((name) => name.endsWith('.tgz'))!
  mkdirSync(app)
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', private: true, type: 'module' }))
  run('npm', ['install', '--no-audit', '--no-fund', join(folder, archive)], app)

  const text = run('npx', ['unmask', 'generate', 'tiny', '--prompt', 'reverse(stone)=', '--threads', '1'], app)
  expect(text, 'enots\n')
  writeFileSync(
    join(app, 'use.ts'),
    `import { openModel, tinyModel } from 'unmask'
const model = await openModel(tinyModel, { threads: 1 })
const twice: string[] = []
for (const prompt of ['reverse(stone)=', 'reverse(ab)='])
  for await (const { added } of model.generate(prompt)) twice.push(added)
console.log(twice.join(' '))
await model.dispose()
`,
  )
  const compiler = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--lib', 'es2023,dom']
  run(
    join(root, 'node_modules', '.bin', 'tsc'),
    [...compiler, '--typeRoots', join(root, 'node_modules', '@types'), '--types', 'node', 'use.ts'],
    app,
  )
  expect(run('node', ['use.js'], app).replaceAll(' ', ''), 'enotsba\n')
  checkPages(join(app, 'node_modules', 'unmask'))
} finally {
  rmSync(folder, { recursive: true })
}

function expect(found: string, wanted: string): void {
  if (found !== wanted) throw new Error(`expected ${JSON.stringify(wanted)}, not ${JSON.stringify(found)}`)
}

/** Links of README and the pages beside models, examples and recipes, and the scripts and recipes that they name. */
function checkPages(folder: string): void {
  const pages = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /^(README\.md|(models|examples|recipes)\/.*\.(md|yaml))$/.test(name),
  )
  const missing = pages.flatMap((page) => {
    const text = readFileSync(join(folder, page), 'utf8')
    const links = [...text.matchAll(/\]\((?!\w+:|#)([^)#\s]+)/g)].map(([, link]) =>
      resolve(folder, dirname(page), link!),
    )
    const named = [...text.matchAll(/\b(?:scripts|recipes|examples)\/[\w./-]+\w/g)].map(([path]) => join(folder, path))
    return [...links, ...named].filter((path) => !existsSync(path)).map((path) => `${page}: ${path}`)
  })
  if (missing.length > 0) throw new Error(`the package lacks what its pages name:\n${missing.join('\n')}`)
}
