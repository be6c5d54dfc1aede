// Wrong flags, without a process for each: a failure is what main.ts would report.
import { describe, expect, it } from 'vitest'
import { createProgram } from './command-line.ts'
import { failureOf } from './errors.ts'
import { exitCodes } from './exit-codes.ts'
import { size } from './flags.ts'

/** What a command line fails with. */
async function failure(line: string): Promise<{ code: number; message: string }> {
  const program = createProgram({ signal: new AbortController().signal, exitCode: 0, onStop: '' })
  for (const command of [program, ...program.commands.flatMap((each) => [each, ...each.commands])])
    command.configureOutput({ writeErr: () => undefined })
  return program.parseAsync(line.split(' '), { from: 'user' }).then(
    () => ({ code: 0, message: '' }),
    (error) => failureOf(error),
  )
}

describe('wrong flags name themselves', () => {
  it.each([
    ['cluster plan llada2-mini --gpus X9:2', /^--gpus: expected a GPU and how many/],
    ['cluster plan llada2-mini --gpus H100:0', /^--gpus: .*not "H100:0"/],
    ['cluster plan llada2-mini --expert-parallel 3', /^--expert-parallel: expected a divisor of 8 GPUs/],
    ['cluster plan models/tiny --expert-parallel 2', /^--expert-parallel: this model has no experts/],
    ['cluster plan llada2-mini --block-size 48', /^--block-size: 48 does not divide --length 4096/],
    // Values are checked before a model is looked for.
    ['cluster plan no/such/folder --rows 0', /^--rows: /],
    ['quantize models/tiny out --group-size 24', /^--group-size: expected 16, 32, 64/],
    ['quantize no/such/folder out --bits 4 --activations 8', /^--activations, --bits: /],
    ['quantize models/tiny out --method gptq', /^--method, --calibration: gptq needs text/],
  ])('unmask %s', async (line, message) => {
    expect(await failure(line)).toEqual({ code: exitCodes.usage, message: expect.stringMatching(message) })
  })
})

describe('flags that would be ignored are refused', () => {
  it.each([
    ['cluster plan llada2-mini --to slurm', '--to'],
    ['cluster render a.yaml --to ray --gpus H100:2', '--gpus'],
    ['cluster run a.yaml --tokens 1G', '--tokens'],
    ['eval compare a b --adapter x', '--adapter'],
    ['eval suite m --margin 2', '--margin'],
    ['report a --against b --watts 30', '--watts'],
    ['tune m --force', '--force'],
    ['quantize m out --calibration-tokens 100', '--calibration-tokens'],
    ['quantize m out --template chat', '--template'],
    ['quantize m out --no-sequential', '--no-sequential'],
    ['infill m --text a{{2}} --length 3', '--length'],
  ])('unmask %s', async (line, flag) => {
    expect(await failure(line)).toEqual({ code: exitCodes.usage, message: expect.stringContaining(flag) })
  })

  it('and an action that is left out is asked for', async () => {
    expect(await failure('cluster')).toEqual({ code: exitCodes.usage, message: expect.stringContaining('missing') })
    expect(await failure('cluster pan')).toEqual({ code: exitCodes.usage, message: expect.stringContaining("'pan'") })
  })
})

describe('help of an action', () => {
  it('has its own flags alone', () => {
    const program = createProgram({ signal: new AbortController().signal, exitCode: 0, onStop: '' })
    const cluster = program.commands.find((command) => command.name() === 'cluster')!
    const help = Object.fromEntries(cluster.commands.map((each) => [each.name(), each.helpInformation()]))
    expect(Object.keys(help)).toEqual(['plan', 'render', 'run'])
    expect(help.plan).toContain('--gpus')
    expect(help.plan).not.toContain('--to ')
    expect(help.render).toContain('--to')
    expect(help.render).not.toContain('--gpus')
  })
})

describe('a size', () => {
  it.each([
    ['512MB', 512e6],
    ['4GB', 4e9],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['64KiB', 65536],
  ])('%s are %d bytes', (text, bytes) => {
    expect(size('--fits', text)).toBe(bytes)
  })

  it.each(['4', 'GB', '4XB', '0GB', '-1GB', '4 GB'])('%j is no size', (text) => {
    expect(() => size('--fits', text)).toThrow(`--fits: expected a size such as 512MB, 4GB or 4GiB, not "${text}"`)
  })
})
