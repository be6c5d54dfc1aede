// `npm run measure -- NAME...` measures reports anew and remakes docs/benchmarks.md; `--list` prints what each runs and needs.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { reports, variables } from './benchmarks/reports.ts'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
const names = process.argv.slice(2)
const unknown = names.filter((name) => name !== '--list' && !reports.some((report) => report.name === name))

if (names.length === 0 || unknown.length > 0) {
  const known = reports.map(({ name }) => name).join(', ')
  process.stderr.write(`usage: npm run measure -- NAME...   (or --list)\nNAME is one of: ${known}\n`)
  process.exitCode = 2
} else if (names.includes('--list')) {
  for (const { name, command, needs } of reports)
    process.stdout.write(`# ${name}${needs.length > 0 ? ` (needs ${needs.join(', ')})` : ''}\n${command}\n\n`)
} else {
  for (const name of names) if (!measure(name)) process.exitCode = 1
  run('npm run --silent docs:benchmarks')
}

/** Runs a report's commands; what it printed or wrote replaces its file only if they all ended well. */
function measure(name: string): boolean {
  const { command, needs, file, copyFrom } = reports.find((report) => report.name === name)!
  const missing = needs.filter((need) => (need in variables ? !process.env[need] : !existsSync(need)))
  if (missing.length > 0) {
    process.stderr.write(`${name}: missing ${missing.join(', ')}\n`)
    return false
  }
  const { status, stdout } = run(command)
  if (status !== 0) {
    const printed = `runs/${name}.failed.jsonl`
    mkdirSync(dirname(printed), { recursive: true })
    writeFileSync(printed, jsonLines(stdout))
    process.stderr.write(`${name}: ended with ${status}; ${file} is as it was, what was printed is in ${printed}\n`)
    return false
  }
  const target = `docs/reports/${file}`
  if (copyFrom) cpSync(copyFrom, target, { recursive: true })
  else {
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, jsonLines(stdout))
  }
  return true
}

/** What npm or an earlier command prints between the lines is not part of the report. */
function jsonLines(text: string): string {
  const lines = text.split('\n').filter((line) => line.startsWith('{'))
  return lines.map((line) => `${line}\n`).join('')
}

function run(command: string) {
  return spawnSync('sh', ['-ec', command], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
}
