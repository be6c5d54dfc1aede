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
  for (const run of ['quickstart', 'mine']) cpSync(models, join(folder, 'runs', run), { recursive: true })
  return folder
}

/** The run of the quickstart where it was made, else one of few tokens that writes nonsense: the mechanics are the same. */
export function prepareModels(): string {
  const made = join(ROOT, 'runs', 'quickstart')
  const folder = mkdtempSync(join(tmpdir(), 'unmask-docs-models-'))
  const copied = join(folder, 'run')
  if (existsSync(join(made, 'model', 'config.json'))) {
    for (const part of ['model', 'data']) cpSync(join(made, part), join(copied, part), { recursive: true })
    return copied
  }
  const flags =
    '--train-path models/tiny/data/speeches.train.jsonl --total-tokens 8k --block-size 16 --schedule constant'
  const args = ['bin/unmask.js', 'convert', '--model', 'models/tiny', ...flags.split(' '), '--prompts', '0']
  execFileSync(process.execPath, [...args, '--output-dir', copied, '--quiet'], { cwd: ROOT, stdio: 'inherit' })
  mkdirSync(join(copied, 'data'))
  for (const [from, to] of [
    ['train', 'train'],
    ['test', 'validation'],
  ])
    cpSync(join(ROOT, `models/tiny/data/speeches.${from}.jsonl`), join(copied, 'data', `${to}.jsonl`))
  return copied
}
