// From a YAML file and command-line flags to a recipe: flags win, and an error names the line of the file or the flag.
import type { Command } from 'commander'
import { Option } from 'commander'
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, stringify } from 'yaml'
import { readText } from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import {
  type Origin,
  parsePrices,
  parseRecipe,
  parseSections,
  type Recipe,
  RecipeError,
  recipeSettings,
  type Setting,
} from '../jobs/recipe.ts'
import { UsageError } from './errors.ts'
import { recipeFlag } from './flag-names.ts'
import { isCommon, markRare } from './help.ts'

const maxRecipeBytes = 1 << 20

/** Adds one flag per setting, grouped in the help by section; `choose` limits them. */
export function addRecipeFlags(
  command: Command,
  choose: (setting: Setting) => boolean = () => true,
  settings: readonly Setting[] = recipeSettings(),
): void {
  for (const setting of settings) {
    if (!choose(setting)) continue
    // --threads is a flag of every command.
    if (setting.path === 'threads') continue
    const option = new Option(`${recipeFlag(setting.path)}${placeholder(setting)}`, helpText(setting))
    option.helpGroup(setting.section === '' ? 'Recipe:' : `Recipe, ${setting.section}:`)
    if (isList(setting)) {
      option.argParser((value: string, previous: string[] | undefined) => [...(previous ?? []), ...splitList(value)])
    }
    command.addOption(isCommon(setting.path) ? option : markRare(option))
    if (setting.kind === 'boolean')
      command.addOption(new Option(recipeFlag(setting.path).replace('--', '--no-')).hideHelp())
  }
}

const isList = ({ kind }: Setting): boolean => ['list', 'numbers', 'text-or-list'].includes(kind)

function placeholder(setting: Setting): string {
  const { kind, choices } = setting
  if (choices) return ` <${choices.join('|')}>`
  if (kind === 'boolean') return ''
  if (kind === 'number') return ' <number>'
  return isList(setting) ? ' <list>' : ' <value>'
}

function helpText(setting: Setting): string {
  if (setting.default === undefined) return setting.description
  const shown = (Array.isArray(setting.default) ? setting.default.join(',') : String(setting.default)) || 'none'
  return `${setting.description} (default: ${shown})`
}

/** Splits at commas, but not at those inside the braces of a glob. */
function splitList(value: string): string[] {
  return value
    .split(/,(?![^{]*\})/)
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

/** The recipe file of a training command: the one that is named or, to resume, the one that the run has kept. */
export async function recipeFile({
  recipe,
  resume,
  outputDir,
}: {
  recipe?: string
  resume?: boolean
  outputDir?: string
}): Promise<string | undefined> {
  if (recipe !== undefined || !resume) return recipe
  if (outputDir === undefined) throw new UsageError('--resume: name the run with --output-dir or --recipe')
  const { findRunRecipe } = await import('../train/run-folder.ts')
  return findRunRecipe(outputDir)
}

/** A recipe with where each of its values came from. */
export interface LoadedRecipe<R = Recipe> {
  recipe: R
  /** The merged recipe as YAML, with every default written out: what `--dry-run` prints and what is kept beside the run. */
  yaml: string
  /** Where the value of a setting came from. */
  origin: Origin
}

/** Runs what takes the recipe; where settings of it do not fit, the error says where they were given. */
export async function withOrigins<T>({ origin }: Pick<LoadedRecipe, 'origin'>, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw error instanceof RecipeError ? new UsageError(error.inOrigins(origin)) : error
  }
}

/**
 * Merges the recipe file (if any) with the flags of a command (flags win), and checks the result.
 * `options` is what commander parsed; keys that are no settings are left alone.
 * Throws UserError where the file cannot be read or parsed, and for every wrong key or value; UsageError where flags are
 * wrong.
 */
export const loadRecipe = (file: string | undefined, options: Record<string, unknown>): Promise<LoadedRecipe> =>
  mergeRecipe(file, options, recipeSettings(), parseRecipe)

/** `loadRecipe` for a recipe of other settings. */
export async function mergeRecipe<R>(
  file: string | undefined,
  options: Record<string, unknown>,
  settings: readonly Setting[],
  parse: (value: unknown, origin: Origin) => R,
): Promise<LoadedRecipe<R>> {
  const fromFile = file === undefined ? { value: {}, lineOf: () => undefined } : await readRecipeFile(file)
  const merged = structuredClone(fromFile.value)
  const flags = new Map<string, string>()
  for (const setting of settings) {
    const given = options[optionKey(setting)]
    if (given === undefined) continue
    flags.set(setting.path, recipeFlag(setting.path))
    setAt(merged, setting.path.split('.'), fromFlag(setting, given))
  }
  // A section that is missing is an empty one, so that what it lacks is named.
  for (const { section } of settings) if (section !== '') merged[section] ??= {}
  let wrongFlag = file === undefined
  const origin = (path: string): string => {
    const flag = [...flags].find(([known]) => path === known || path.startsWith(`${known}.`))
    if (flag) {
      wrongFlag = true
      return flag[1]
    }
    const line = fromFile.lineOf(path)
    if (line !== undefined) return `${file}:${line}: ${path}`
    const setting = settings.find((known) => known.path === path)
    if (file !== undefined) return `${file}: ${path === '' ? 'the recipe' : path}`
    return setting ? `${recipeFlag(path)} (${path} in a recipe)` : path
  }
  try {
    const recipe = parse(merged, origin)
    return { recipe, yaml: stringify(recipe), origin }
  } catch (error) {
    throw error instanceof UserError && wrongFlag ? new UsageError(error.message) : error
  }
}

/** The decoding and evaluation settings among the flags of a command. */
export const sectionFlags = (options: Record<string, unknown>): Pick<Recipe, 'decode' | 'eval'> =>
  parseFlags(options, ['decode', 'eval'], parseSections)

/** The prices among the flags of a command; those that are not given are left out. */
export const priceFlags = (options: Record<string, unknown>): Partial<Recipe['cost']> =>
  parseFlags(options, ['cost'], parsePrices)

function parseFlags<T>(
  options: Record<string, unknown>,
  sections: readonly string[],
  parse: (value: unknown, origin: Origin) => T,
): T {
  const settings = recipeSettings().filter(({ section }) => sections.includes(section))
  const value: Record<string, unknown> = {}
  for (const setting of settings) {
    const given = options[optionKey(setting)]
    if (given !== undefined) setAt(value, setting.path.split('.'), fromFlag(setting, given))
  }
  try {
    return parse(value, (path) => {
      const setting = settings.find((known) => path === known.path || path.startsWith(`${known.path}.`))
      return setting ? recipeFlag(setting.path) : path
    })
  } catch (error) {
    throw error instanceof UserError ? new UsageError(error.message) : error
  }
}

/** The value of one flag as its setting wants it. What is no number stays text, for the schema to reject by name. */
function fromFlag(setting: Setting, given: unknown): unknown {
  const number = (text: unknown) => (text !== '' && Number.isFinite(Number(text)) ? Number(text) : text)
  switch (setting.kind) {
    case 'number':
    case 'text-or-number':
      return number(given)
    case 'numbers':
      return Array.isArray(given) ? given.map(number) : given
    case 'text-or-list':
      return Array.isArray(given) && given.length === 1 && !String(given[0]).includes(':') ? given[0] : given
    default:
      return given
  }
}

/** The key under which commander stores a flag. */
function optionKey(setting: Setting): string {
  return recipeFlag(setting.path)
    .slice(2)
    .replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

function setAt(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let current = target
  for (const key of path.slice(0, -1)) {
    const child = current[key]
    if (typeof child === 'object' && child !== null && !Array.isArray(child)) current = child as Record<string, unknown>
    else {
      const created: Record<string, unknown> = {}
      current[key] = created
      current = created
    }
  }
  current[path.at(-1)!] = value
}

/** Reads YAML (JSON is YAML too). Nothing but plain data: aliases are limited, custom tags are errors. */
export async function readRecipeFile(
  file: string,
): Promise<{ value: Record<string, unknown>; lineOf: (path: string) => number | undefined }> {
  const text = await readText(file)
  if (text.length > maxRecipeBytes) throw new UserError(`Recipe ${file}: larger than 1 MiB; is it a recipe?`)
  const lines = new LineCounter()
  let document: ReturnType<typeof parseDocument>
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  } catch {
    throw new UserError(`${file}: is nested too deeply for a recipe`)
  }
  const problem = document.errors[0] ?? document.warnings[0]
  if (problem) {
    const { line, col } = lines.linePos(problem.pos[0])
    throw new UserError(`${file}:${line}:${col}: not valid YAML: ${problem.message}`)
  }
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 }) ?? {}
  } catch (error) {
    throw new UserError(`${file}: cannot be used: ${error instanceof Error ? error.message : error}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UserError(`${file}: a recipe is a list of "key: value" lines; see \`unmask convert --help\`.`)
  }
  const lineOf = (path: string): number | undefined => {
    let node: unknown = document.contents
    let line: number | undefined
    for (const key of path.split('.')) {
      if (isSeq(node)) {
        const item: unknown = node.items[Number(key)]
        if (isNode(item) && item.range) line = lines.linePos(item.range[0]).line
        node = item
        continue
      }
      if (!isMap(node)) break
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key)
      if (!pair || !isScalar(pair.key)) return undefined
      const start = pair.key.range?.[0]
      if (start !== undefined) line = lines.linePos(start).line
      node = pair.value
    }
    return line
  }
  return { value: value as Record<string, unknown>, lineOf }
}
