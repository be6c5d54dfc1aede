import type { Command } from 'commander'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { recipeSettings } from '../jobs/recipe.ts'
import { createProgram } from './command-line.ts'
import { recipeFlag } from './flag-names.ts'
import { wrapText } from './help.ts'

const program = () => createProgram({ signal: new AbortController().signal, exitCode: 0, onStop: '' })
const find = (name: string) => program().commands.find((command) => command.name() === name)!
const names = program().commands.map((command) => command.name())

/** Help as it is written for a width. */
function help(command: Command, width: number, args: string[] = []): string {
  let out = ''
  command.configureHelp({ ...command.configureHelp(), helpWidth: width })
  command.configureOutput({ writeOut: (text) => (out += wrapText(text, width)) })
  if (args.length === 0) command.outputHelp()
  else expect(() => command.exitOverride().parse(args, { from: 'user' })).toThrow()
  return out
}

describe('help', () => {
  it.each(names)('of %s breaks no word at 40 columns, and keeps all words', (name) => {
    const narrow = help(find(name), 40)
    const words = (text: string) => text.split(/\s+/).filter((word) => word !== '' && word !== '\\')
    for (const line of narrow.split('\n')) {
      // A word that is wider than the terminal, such as the choices of a flag, stands alone.
      if (line.length > 40) expect(words(line).length, line).toBeLessThanOrEqual(2)
    }
    expect(words(narrow)).toEqual(words(help(find(name), 1000)))
  })

  it.each(names)('of %s leaves breaking lines to the width of the terminal', (name) => {
    const wide = help(find(name), 1000)
    expect(wide).not.toMatch(/^\S.*[^:\n]\n\S/m)
  })

  it('has the common settings, and all with --help-all', () => {
    const settings = recipeSettings().filter(({ path }) => path !== 'threads')
    const usual = help(find('convert'), 100)
    const full = help(find('convert'), 100, ['--help-all'])
    const shown = (text: string) =>
      settings.filter(
        (setting) => text.includes(`${recipeFlag(setting.path)} `) || text.includes(`${recipeFlag(setting.path)}\n`),
      )
    expect(shown(full).map(({ path }) => path)).toEqual(settings.map(({ path }) => path))
    expect(shown(usual).length).toBeLessThan(settings.length * 0.6)
    expect(usual).toContain('--help-all')
    expect(help(find('info'), 100)).not.toContain('--help-all')
  })
})

describe('wrapText', () => {
  it('keeps words, and lines within the width where words allow', () => {
    fc.assert(
      fc.property(
        fc.array(fc.stringMatching(/^[a-z]{1,12}$/), { minLength: 1 }),
        fc.integer({ min: 14, max: 60 }),
        (words, width) => {
          const wrapped = wrapText(`  ${words.join(' ')}`, width)
          expect(wrapped.split(/\s+/).filter(Boolean)).toEqual(words)
          for (const line of wrapped.split('\n')) expect(line.length).toBeLessThanOrEqual(width)
        },
      ),
    )
  })

  it('continues commands so that they can be copied', () => {
    expect(wrapText('  $ unmask convert --recipe a.yaml --resume', 24)).toBe(
      '  $ unmask convert \\\n      --recipe a.yaml \\\n      --resume',
    )
  })
})
