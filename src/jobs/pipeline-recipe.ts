// The recipe of a pipeline: a list of stages with their settings, and sections that they share. All contradictions are found
// here, before anything runs. Reads the headers of a model that is on this machine, and nothing else.
import { join } from 'node:path'
import * as z from 'zod'
import { isAdapterFolder } from '../checkpoint/adapted.ts'
import { exists, readModelJson } from '../checkpoint/file.ts'
import { localModel } from '../checkpoint/hub.ts'
import { openCheckpoint } from '../checkpoint/huggingface.ts'
import { type ModelConfig, UserError } from '../core/types.ts'
import { check } from '../formats/check.ts'
import { isRecord } from '../formats/json.ts'
import { type Known, type StageName, stageKinds, stageNames } from './pipeline-stages.ts'
import { nearest, type Origin, recipeSettings, type Setting } from './recipe.ts'

/** Sections that a stage takes from the top of the recipe, as far as it knows them and does not say otherwise. */
const sharedSections = ['data', 'train', 'decode', 'eval', 'cost', 'card'] as const

const section = z.record(z.string(), z.unknown()).optional()

export const pipelineSchema = z.strictObject({
  model: z
    .string()
    .min(1)
    .describe('model that the first stage begins with: folder, file, Hub repository, pypi:PACKAGE'),
  output_dir: z.string().min(1).describe('folder that receives a folder for each stage'),
  threads: z.int().min(0).default(0).describe('threads of the executor; 0 for one per core'),
  seed: z.int().min(0).max(0xffff_ffff).optional().describe('train.seed of every stage that does not say its own'),
  data: section,
  train: section,
  decode: section,
  eval: section,
  cost: section,
  card: section,
  stages: z.array(z.record(z.string(), z.unknown())).min(1),
})

/** The settings that are flags too. */
export const pipelineSettings = (): Setting[] =>
  recipeSettings(pipelineSchema.pick({ model: true, output_dir: true, seed: true }))

/** A stage, checked. */
export interface PlannedStage {
  /** Its name in the pipeline: that of its kind, with a number from the second of its kind on. */
  id: string
  kind: StageName
  /** Where it stands in the recipe. */
  path: string
  /** The stage whose model it takes; undefined for the pipeline's model. */
  from: string | undefined
  /** Complete settings, but for model, output_dir and threads. */
  settings: Record<string, unknown>
  /** Data files, folders and globs that it reads. */
  paths: string[]
}

export interface PipelinePlan {
  model: string
  outputDir: string
  threads: number
  seed: number | undefined
  stages: PlannedStage[]
}

/**
 * Checks the recipe of a pipeline. Throws UserError with one line per problem, which names the key (through `origin`): wrong
 * keys and values, and stages that contradict each other.
 */
export async function parsePipeline(value: unknown, origin: Origin = (path) => path): Promise<PipelinePlan> {
  const result = check(pipelineSchema, value)
  if ('problems' in result)
    throw new UserError(
      result.problems
        .map(({ path, message, unknownKey }) => {
          const key = path.join('.')
          const near = unknownKey ? nearest(key, Object.keys(pipelineSchema.shape)) : undefined
          return `${origin(key)}: ${message}${near ? `; did you mean ${near}?` : ''}`
        })
        .join('\n'),
    )
  const { model, output_dir: outputDir, threads, seed, stages, ...sections } = result.data
  const planned: PlannedStage[] = []
  const known = new Map<string | undefined, Known>([[undefined, await knownOf(model, origin)]])
  let last: string | undefined
  for (const [i, entry] of stages.entries()) {
    const { kind, path, given } = stageOf(entry, `stages.${i}`, origin)
    const { from = last, name, ...own } = given
    const id = idOf(name ?? kind, planned, { path, origin, named: name !== undefined })
    const input = known.get(from as string | undefined)
    if (!input) throw new UserError(`${origin(`${path}.from`)}: ${fromProblem(from, planned)}`)
    const shared = sharedOf(stageKinds[kind].shares, sections, seed)
    const nameOf: Origin = (key) => origin(isSaid(own, key) || !isSaid(shared, key) ? `${path}.${key}` : key)
    const { settings, paths, after } = await stageKinds[kind].plan(merged(own, shared), {
      ...{ known: input, origin: nameOf, path },
      at: origin(path),
    })
    planned.push({ id, kind, path, from: from as string | undefined, settings, paths })
    if (after) {
      known.set(id, after)
      last = id
    }
  }
  return { model, outputDir, threads, seed, stages: planned }
}

function stageOf(entry: Record<string, unknown>, at: string, origin: Origin) {
  const [kind, ...others] = Object.keys(entry)
  if (kind === undefined || others.length > 0)
    throw new UserError(
      `${origin(at)}: expected one stage, such as "- convert: { ... }", not ${others.length + 1} keys`,
    )
  if (!isStage(kind)) {
    const near = nearest(kind, stageNames)
    throw new UserError(
      `${origin(`${at}.${kind}`)}: there is no such stage${near ? `; did you mean ${near}?` : ''}; there are ${stageNames.join(', ')}`,
    )
  }
  const given = entry[kind] ?? {}
  if (!isRecord(given)) throw new UserError(`${origin(`${at}.${kind}`)}: expected settings as keys with values`)
  return { kind, path: `${at}.${kind}`, given }
}

const isStage = (name: string): name is StageName => Object.hasOwn(stageKinds, name)

function idOf(
  name: unknown,
  planned: readonly PlannedStage[],
  { path, origin, named }: { path: string; origin: Origin; named: boolean },
): string {
  if (typeof name !== 'string' || !/^[a-z][\w-]*$/.test(name))
    throw new UserError(`${origin(`${path}.name`)}: expected letters, digits, - and _, not ${JSON.stringify(name)}`)
  const taken = (id: string) => planned.some((stage) => stage.id === id)
  if (!taken(name)) return name
  if (named) throw new UserError(`${origin(`${path}.name`)}: another stage is called ${name}`)
  let number = 2
  while (taken(`${name}-${number}`)) number++
  return `${name}-${number}`
}

function fromProblem(from: unknown, planned: readonly PlannedStage[]): string {
  const stage = planned.find(({ id }) => id === from)
  if (stage) return `${from} makes no model`
  const names = planned.map(({ id }) => id)
  return `no stage before it is called ${JSON.stringify(from)}${names.length > 0 ? `; there are ${names.join(', ')}` : ''}`
}

/** The sections that a stage shares, with the seed. */
function sharedOf(
  shares: readonly string[],
  sections: Partial<Record<string, Record<string, unknown> | undefined>>,
  seed: number | undefined,
): Record<string, Record<string, unknown>> {
  const shared: Record<string, Record<string, unknown>> = {}
  for (const name of sharedSections) if (shares.includes(name) && sections[name]) shared[name] = sections[name]
  if (seed !== undefined && shares.includes('seed')) shared.train = { seed, ...shared.train }
  return shared
}

/** Settings with those of the shared sections that they leave out. */
function merged(
  own: Record<string, unknown>,
  shared: Record<string, Record<string, unknown>>,
): Record<string, unknown> {
  const out = { ...own }
  for (const [name, section] of Object.entries(shared)) {
    const said = out[name]
    if (said === undefined) out[name] = section
    else if (isRecord(said)) out[name] = { ...section, ...said }
  }
  return out
}

function isSaid(value: unknown, key: string): boolean {
  let current = value
  for (const part of key.split('.')) {
    if (!isRecord(current) || current[part] === undefined) return false
    current = current[part]
  }
  return true
}

/** What can be known of a model before it is fetched. Throws UserError where it is neither here nor a source, or no model. */
async function knownOf(model: string, origin: Origin): Promise<Known> {
  try {
    const local = await localModel(model)
    // The base of an adapter may have to be fetched.
    if (local === undefined || (await isAdapterFolder(local)))
      return { config: undefined, rounded: undefined, run: undefined }
    await (await openCheckpoint(local)).close()
    const file = join(local, 'config.json')
    if (!(await exists(file))) return { config: undefined, rounded: undefined, run: undefined }
    const config = (await readModelJson(file)) as ModelConfig
    return { config, rounded: config.quantization_config ? `the model ${model}` : undefined, run: undefined }
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${origin('model')}: ${error.message}`) : error
  }
}
