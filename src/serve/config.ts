// The configuration of a server: one schema for a YAML file, the environment (UNMASK_*) and flags. Knows names, ranges and
// defaults. Nothing of it ever comes from a client.
import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import * as z from 'zod'
import { devices, UserError } from '../core/types.ts'
import { decodingModes, settingRow } from '../decode/settings.ts'
import { check, describeProblems } from '../formats/check.ts'
import { piiKinds } from '../safety/index.ts'

const whole = z.int().min(1)
const seconds = z.number().positive().max(86_400)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'expected the 64 hexadecimal digits of a SHA-256')
/** Names that clients say; also labels of metrics. */
const name = z.string().regex(/^[\w./:@-]{1,128}$/, 'expected letters, digits and ./:@_- only')

/** An origin as browsers send it: without a path, in lower case, without the port that its scheme implies. */
const origin = z.string().transform((given, context) => {
  const url = URL.canParse(given) ? new URL(given) : undefined
  const written = url && url.host !== '' ? `${url.protocol}//${url.host}` : undefined
  const rest = url && [url.username, url.password, url.pathname.replace(/^\/$/, ''), url.search, url.hash].join('')
  if (written !== undefined && rest === '') return written
  const message = `expected an origin such as ${written ?? 'https://app.example'}`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

const model = z.strictObject({
  name: name.optional().describe('what clients call it (default: the last part of path)'),
  path: z.string().min(1).describe('folder, file, pypi: or Hub source, as for unmask generate'),
  aliases: z.array(name).default([]).describe('other names that mean this model'),
  mode: z.enum(decodingModes).optional().describe(settingRow('mode').help),
  block_size: whole.max(4096).optional().describe('default: block_size of config.json'),
  adapter: z.string().min(1).optional().describe('folder of an adapter that drafts, made by unmask accelerate'),
  prefix_cache: z
    .int()
    .min(0)
    .max(1024)
    .default(0)
    .describe('finished texts whose keys and values are kept, for prompts that begin like them'),
  preload: z.boolean().default(true).describe('load at the start; otherwise with the first request'),
  idle_seconds: z
    .number()
    .min(0)
    .max(604_800)
    .default(0)
    .describe('seconds without work after which the model is unloaded; 0 for never'),
})

const key = z.strictObject({
  name: name.describe('name of the client, for logs and limits'),
  sha256: sha256.describe('SHA-256 of the key; unmask serve --new-key NAME makes one'),
  concurrency: whole.optional().describe('requests of this key at a time'),
  requests_per_minute: whole.optional().describe('requests of this key in any minute'),
})

const limits = z.strictObject({
  concurrency: whole
    .max(512)
    .default(32)
    .describe(
      'sequences that a model generates at a time, those of one client half of what others leave, alone all but an eighth',
    ),
  queue: z
    .int()
    .min(0)
    .default(256)
    .describe('sequences that may wait for a place, those of one client half of what others leave'),
  queue_seconds: seconds.default(60).describe('longest wait for a place'),
  seconds: seconds.default(300).describe('longest generation; then the answer ends, with finish_reason length'),
  load_seconds: seconds.default(600).describe('longest time in which a model loads; then its process is ended'),
  prompt_tokens: whole.default(32_768).describe('most tokens of a prompt, within the positions of the model'),
  output_tokens: whole.default(4096).describe('largest max_tokens, and its default for chats'),
  choices: whole.max(128).default(128).describe('most sequences of one request: prompts times n'),
  body_bytes: whole.default(1 << 20).describe('bytes of a request'),
  answer_bytes: whole
    .default(256 << 20)
    .describe('bytes of answers that wait to be read, about; those of one client half of what others leave'),
  body_seconds: seconds.default(30).describe('time within which a request must arrive'),
  json_depth: whole.max(1000).default(32).describe('nesting of a request'),
  connections: whole.default(1024).describe('open connections'),
})

const safety = z.strictObject({
  filter: z
    .boolean()
    .default(false)
    .describe('judge prompts and answers by the classifier, words and phrases of the package'),
  rules: z.string().min(1).optional().describe('file with rules of your own; docs/safety.md'),
  block: z
    .array(z.string())
    .default([
      ...['hate', 'hate/threatening', 'harassment/threatening', 'illicit/violent', 'self-harm/instructions'],
      'sexual/minors',
    ])
    .describe('categories that block; others are only counted and logged'),
  threshold: z.number().min(0.01).max(1).default(0.5).describe('score from which a category counts'),
  pii: z
    .strictObject({
      prompts: z.boolean().default(true).describe('replace personal data before a model sees it'),
      answers: z.boolean().default(true).describe('replace personal data before a client sees it'),
      kinds: z
        .array(z.enum(piiKinds))
        .min(1)
        .default([...piiKinds]),
      country: z
        .string()
        .regex(/^[A-Z]{2}$/, 'expected two capitals, such as US')
        .optional()
        .describe('country of phone numbers without a country code'),
    })
    .optional(),
  endpoint: z
    .strictObject({
      url: z.url({ protocol: /^https?$/ }).describe('another /v1/moderations; its key is UNMASK_MODERATION_KEY'),
      model: z.string().optional(),
      timeout_seconds: seconds.default(5),
      on_failure: z.enum(['block', 'allow']).default('block').describe('what to do if it does not answer'),
      characters: whole
        .max(100_000)
        .default(256)
        .describe('characters of an answer that the endpoint judges at a time'),
    })
    .optional(),
  audit: z
    .strictObject({
      file: z.string().min(1).describe('file to which JSON lines are added'),
      text: z.enum(['hashed', 'plain']).default('hashed').describe('hashes are keyed with UNMASK_AUDIT_KEY'),
    })
    .optional(),
})

const noModels = 'name at least one model'

export const configSchema = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('address to listen on'),
  port: z.int().min(0).max(65_535).default(8000).describe('port; 0 for a free one'),
  models: z.array(model, noModels).min(1, noModels).describe('models, the first being the default'),
  device: z.enum(devices).default('cpu').describe('where the models run'),
  threads: z.int().min(0).max(1024).default(0).describe('threads of each model; 0 for one per core'),
  api_keys: z.array(key).default([]).describe('without any, everyone who reaches the port may use it'),
  allowed_hosts: z
    .array(z.string().min(1))
    .optional()
    .describe('host names that requests may use (default: on a loopback address its names, else any)'),
  cors_origins: z.array(origin).default([]).describe('web origins whose pages may call the server'),
  limits: limits.prefault({}),
  safety: safety.prefault({}).describe('docs/safety.md'),
  shutdown_seconds: seconds.default(30).describe('time that running requests have after SIGTERM'),
  log_level: z.enum(['silent', 'error', 'warn', 'info', 'debug']).default('info'),
})

export type ServeConfig = z.output<typeof configSchema>
export type ServeConfigInput = z.input<typeof configSchema>
export type ModelConfig = ServeConfig['models'][number]
export type KeyConfig = ServeConfig['api_keys'][number]
export type Limits = ServeConfig['limits']

/** Checks a configuration. Throws UserError that names every wrong entry. */
export function parseConfig(input: unknown, source = 'the configuration'): ServeConfig {
  const result = check(configSchema, input)
  if ('problems' in result) throw new UserError(`${source}: ${describeProblems(result.problems)}`)
  const { models, api_keys: keys } = result.data
  unique(
    models.flatMap(({ name, path, aliases }) => [name ?? defaultName(path), ...aliases]),
    `${source}: models`,
  )
  unique(
    keys.map((entry) => entry.name),
    `${source}: api_keys`,
  )
  return result.data
}

/** What clients call a model that has no name: the last part of its path, without a version. */
export function defaultName(path: string): string {
  const last =
    path
      .replace(/[/\\]+$/, '')
      .split(/[/\\]/)
      .at(-1) ?? path
  return last.replace(/^(pypi|hf):/, '').replace(/(?<=.)(==|@).+$/, '') || 'model'
}

function unique(names: readonly string[], where: string): void {
  const twice = names.find((entry, index) => names.indexOf(entry) !== index)
  if (twice !== undefined) throw new UserError(`${where}: ${JSON.stringify(twice)} is named twice`)
}

export interface ConfigSources {
  /** YAML or JSON. */
  file?: string
  env?: NodeJS.ProcessEnv
  /** Wins over both. */
  flags?: Record<string, unknown>
}

/**
 * Merges file, environment and flags. A variable is UNMASK_ and the path of an entry in capitals: UNMASK_PORT,
 * UNMASK_LIMITS_CONCURRENCY; lists (UNMASK_MODELS: paths, UNMASK_CORS_ORIGINS) are separated by commas.
 * UNMASK_API_KEY is a key in clear, UNMASK_API_KEY_SHA256 its hash.
 */
export async function loadConfig({ file, env = {}, flags = {} }: ConfigSources): Promise<ServeConfig> {
  const merged: Record<string, unknown> = file === undefined ? {} : await readConfigFile(file)
  const sections: [string, z.ZodObject][] = [
    ['', configSchema],
    ['limits', limits],
  ]
  for (const [section, schema] of sections)
    for (const key of Object.keys(schema.shape)) {
      const value = env[`UNMASK_${section === '' ? '' : `${section}_`}${key}`.toUpperCase()]
      if (value === undefined || value === '' || key === 'limits' || key === 'safety' || key === 'api_keys') continue
      if (section === '') merged[key] = fromText(key, value)
      else merged[section] = { ...(merged[section] as object | undefined), [key]: fromText(key, value) }
    }
  if (env.UNMASK_API_KEY_SHA256)
    merged.api_keys = [
      ...((merged.api_keys as unknown[]) ?? []),
      { name: 'environment', sha256: env.UNMASK_API_KEY_SHA256 },
    ]
  for (const [name, value] of Object.entries(flags)) if (value !== undefined) merged[name] = value
  return parseConfig(merged, file ?? 'the configuration')
}

function fromText(key: string, value: string): unknown {
  const list = () => value.split(',').map((part) => part.trim())
  if (key === 'models') return list().map((path) => ({ path }))
  if (key === 'cors_origins' || key === 'allowed_hosts') return list()
  return Number.isFinite(Number(value)) ? Number(value) : value
}

async function readConfigFile(file: string): Promise<Record<string, unknown>> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw new UserError(`${file}: cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 100 }) ?? {}
  } catch (error) {
    throw new UserError(`${file}: not valid YAML: ${error instanceof Error ? error.message : error}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new UserError(`${file}: a configuration is a list of "key: value" lines`)
  return value as Record<string, unknown>
}
