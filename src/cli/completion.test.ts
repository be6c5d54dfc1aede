import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createProgram } from './command-line.ts'
import { completionScript, shells } from './completion.ts'

const program = createProgram({ signal: new AbortController().signal, exitCode: 0, onStop: '' })
const script = (shell: (typeof shells)[number]) => completionScript(program, shell, ['tiny', 'last'])
const has = (shell: string) => spawnSync(shell, ['--version']).status === 0

/** What bash offers behind these words. */
function complete(...words: string[]): string[] {
  const run = `${script('bash')}
COMP_WORDS=(${words.map((word) => JSON.stringify(word)).join(' ')})
COMP_CWORD=${words.length - 1}
_unmask
printf '%s\\n' "\${COMPREPLY[@]}"`
  const { stdout, stderr, status } = spawnSync('bash', ['-c', run], { encoding: 'utf8', cwd: import.meta.dirname })
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return stdout.split('\n').filter(Boolean)
}

describe.skipIf(!has('bash'))('completion in bash', () => {
  it('knows every command', () => {
    expect(complete('unmask', '')).toEqual([
      ...program.commands.map((command) => command.name()),
      '--help',
      '--version',
    ])
    expect(complete('unmask', 'qua')).toEqual(['quantize'])
  })

  it('knows flags, their values, short names and files', () => {
    expect(complete('unmask', 'convert', '--complem')).toEqual(['--complementary-masking'])
    expect(complete('unmask', 'convert', '--lr-decay-style', '')).toContain('cosine')
    expect(complete('unmask', 'generate', '--mode', 'd')).toContain('diffusion')
    expect(complete('unmask', 'generate', 'ti')).toEqual(['tiny'])
    expect(complete('unmask', 'generate', '--adapter', 'help.').sort()).toEqual(['help.test.ts', 'help.ts'])
    expect(complete('unmask', 'cluster', 'pl')).toEqual(['plan'])
    expect(complete('unmask', 'cluster', 'plan', '--gp')).toEqual(['--gpus'])
    expect(complete('unmask', 'cluster', 'render', '--gp')).toEqual([])
    expect(complete('unmask', 'cluster', 'render', '--to', 'sl')).toEqual(['slurm'])
    expect(complete('unmask', 'completion', '')).toEqual(expect.arrayContaining([...shells]))
  })
})

describe.each(shells)('the script for %s', (shell) => {
  it('names every command and flag', () => {
    const text = script(shell)
    for (const command of program.commands.flatMap((each) => [each, ...each.commands])) {
      expect(text).toContain(command.name())
      for (const { long } of command.options) expect(text).toContain(long!.slice(2))
    }
  })

  it.skipIf(!has(shell))('can be read by the shell', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'unmask-completion-')), 'script')
    writeFileSync(file, script(shell))
    const { status, stderr } = spawnSync(shell, ['-n', file], { encoding: 'utf8' })
    rmSync(dirname(file), { recursive: true })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })
})
