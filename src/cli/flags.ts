// Values of flags that are no settings of a recipe.
import { type Command, Option } from 'commander'
import { devices } from '../core/types.ts'
import { UsageError } from './errors.ts'

/** Flags that a command cannot do without. */
const required = new WeakSet<Option>()

/** Makes a flag one that must be given. */
export function mandatory(option: Option): Option {
  required.add(option)
  return option
}

/**
 * Throws UsageError that names the required flags that are missing. commander's own check would come before that of unknown
 * flags, and hide that a flag is only mistyped.
 */
export function checkRequired(command: Command): void {
  const missing = command.options.filter(
    (option) => required.has(option) && command.getOptionValue(option.attributeName()) === undefined,
  )
  if (missing.length > 0) throw new UsageError(missing.map(({ long }) => `${long}: is required`).join('\n'))
}

const givenFlags = (command: Command): Option[] =>
  command.options.filter((option) => command.getOptionValueSource(option.attributeName()) === 'cli')

/** Throws UsageError for a flag of `flags` that was given although nothing reads it; `why` says what it is for. */
export function refuseUnread(command: Command, flags: readonly string[], why: string): void {
  const unread = givenFlags(command).find(({ long }) => flags.includes(long!))
  if (unread) throw new UsageError(`${unread.long}: ${why}`)
}

/**
 * The flags of a command below another. commander gives those that both have to the upper one. Throws UsageError for a flag that
 * only the upper one has.
 */
export function flagsBelow<T extends object>(command: Command): T {
  const upper = command.parent as Command
  const own = new Set(command.options.map((option) => option.attributeName()))
  const foreign = givenFlags(upper).find((option) => !own.has(option.attributeName()))
  if (foreign) throw new UsageError(`${foreign.long}: unmask ${upper.name()} ${command.name()} has no such flag`)
  return command.optsWithGlobals<T>()
}

/** The flag of commands that run models. */
export const deviceOption = (): Option =>
  new Option('--device <device>', 'where the model runs; what a device cannot do, the processor does')
    .choices(devices)
    .default('cpu')

/** The flags of commands that train in a run folder. */
export const runFolderOptions = (): Option[] => [
  new Option('--resume', 'continue the run in output_dir from its newest checkpoint; its settings are kept there'),
  new Option('--force', 'delete the run that output_dir holds, and start anew').conflicts('resume'),
]

/** A whole number of at least `least`; undefined where the flag is not given. Throws UsageError that names the flag. */
export function wholeNumber(flag: string, value: string | undefined, least = 1): number | undefined {
  return value === undefined ? undefined : parse(flag, value, least, true)
}

/** A time such as 90s, 30m or 2h, in seconds; undefined where the flag is not given. Throws UsageError that names the flag. */
export function time(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  const [, amount, unit] = /^(\d+(?:\.\d+)?)([smh])$/.exec(value) ?? []
  const seconds = Number(amount) * { s: 1, m: 60, h: 3600 }[unit as 's' | 'm' | 'h']
  if (amount === undefined || !(seconds > 0))
    throw new UsageError(`${flag}: expected a time such as 90s, 30m or 2h, not ${JSON.stringify(value)}`)
  return seconds
}

/** A size such as 512MB, 4GB or 4GiB, in bytes; undefined where the flag is not given. Throws UsageError that names the flag. */
export function size(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  const [, amount, prefix, binary] = /^(\d+(?:\.\d+)?)([KMGT])(i?)B$/.exec(value) ?? []
  const bytes = Number(amount) * (binary ? 1024 : 1000) ** ' KMGT'.indexOf(prefix ?? ' ')
  if (amount === undefined || !(bytes > 0))
    throw new UsageError(`${flag}: expected a size such as 512MB, 4GB or 4GiB, not ${JSON.stringify(value)}`)
  return bytes
}

/** Numbers separated by commas. */
export function numberList(
  flag: string,
  value: string | undefined,
  { least, whole = true }: { least: number; whole?: boolean },
): number[] | undefined {
  return value?.split(',').map((part) => parse(flag, part.trim(), least, whole))
}

/** A number in a range. */
export function number(flag: string, value: string, { least = 0, most = Number.POSITIVE_INFINITY } = {}): number {
  const parsed = parse(flag, value, least, false)
  if (parsed > most) throw new UsageError(`${flag}: expected a number of at most ${most}, not ${JSON.stringify(value)}`)
  return parsed
}

function parse(flag: string, text: string, least: number, whole: boolean): number {
  const number = Number(text)
  if (text === '' || !(whole ? Number.isSafeInteger(number) : Number.isFinite(number)) || number < least)
    throw new UsageError(
      `${flag}: expected a ${whole ? 'whole ' : ''}number of at least ${least}, not ${JSON.stringify(text)}`,
    )
  return number
}
