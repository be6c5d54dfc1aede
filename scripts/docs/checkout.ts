// A copy of the checkout to run commands in, with its build, its packages and a model as the quickstart makes it.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const list = (...args: string[]): string[] =>
  execFileSync('git', ['ls-files', ...args], { cwd: ROOT, encoding: 'utf8' })
    .split('\n')
    .filter(Boolean)

/** Pages with code blocks. */
export const pages = (): string[] =>
  list('--', 'README.md', 'CONTRIBUTING.md', 'docs/*.md', 'models/*.md').filter(
    (page) => !page.startsWith('docs/reports'),
  )

/** Copies the checkout into a new temporary folder. The models in it come from `models`, by path. */
export function copyCheckout(models: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'unmask-docs-'))
  for (const file of list('--cached', '--others', '--exclude-standard')) {
    if (!existsSync(join(ROOT, file))) continue
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    cpSync(join(ROOT, file), join(folder, file))
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true })
  // In the package's own folder npx installs the package first, which would build it again.
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  delete manifest.scripts.prepare
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  for (const run of [...Object.keys(quickstarts), 'mine']) {
    const made = join(models, run === 'mine' ? 'quickstart' : run)
    cpSync(made, join(folder, 'runs', run), { recursive: true })
  }
  return folder
}

/** Folders under runs/ that the quickstart makes with each objective. */
const quickstarts = { quickstart: 'hybrid', blocks: 'diffusion' } as const

/** The runs of the quickstart where they were made, else ones of few tokens that write nonsense: the mechanics are the same. */
export function prepareModels(): string {
  const folder = mkdtempSync(join(tmpdir(), 'unmask-docs-models-'))
  for (const [run, objective] of Object.entries(quickstarts))
    prepareModel(join(ROOT, 'runs', run), join(folder, run), objective)
  return folder
}

function prepareModel(made: string, copied: string, objective: string): void {
  if (existsSync(join(made, 'model', 'config.json'))) {
    for (const part of ['model', 'data']) cpSync(join(made, part), join(copied, part), { recursive: true })
    return
  }
  const flags = `--objective ${objective} --train-path models/tiny/data/speeches.train.jsonl --total-tokens 8k --block-size 16`
  const schedule = objective === 'diffusion' ? ['--schedule', 'constant'] : []
  const args = [
    'bin/unmask.js',
    'convert',
    '--model',
    'models/tiny',
    ...flags.split(' '),
    ...schedule,
    '--prompts',
    '0',
  ]
  execFileSync(process.execPath, [...args, '--output-dir', copied, '--quiet'], { cwd: ROOT, stdio: 'inherit' })
  mkdirSync(join(copied, 'data'))
  for (const [from, to] of [
    ['train', 'train'],
    ['test', 'validation'],
  ])
    cpSync(join(ROOT, `models/tiny/data/speeches.${from}.jsonl`), join(copied, 'data', `${to}.jsonl`))
}
