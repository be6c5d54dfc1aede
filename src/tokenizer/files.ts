// Reads and checks the JSON files of a tokenizer. Does not know what is done with them.
import { UserError } from '../core/types.ts'

/** Files that belong to a tokenizer, in any of the forms that Hugging Face has used. */
export const tokenizerFileNames: readonly string[] = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'vocab.json',
  'merges.txt',
]

export type Json = Record<string, unknown>

/** tokenizer.json as far as unmask looks into it; everything else is passed on untouched. */
export interface TokenizerJson extends Json {
  model: Json
  added_tokens: { id: number; content: string }[]
}

// Beyond any vocabulary in use; keeps a forged id from making arrays of billions of holes.
const MAX_ID = 2 ** 24

/** Parses a JSON file that must hold an object. `name` is the file's name, for the error. */
export function parseObject(text: string, name: string): Json {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new UserError(`${name} is not valid JSON: ${error instanceof Error ? error.message : error}`)
  }
  if (!isObject(value)) throw new UserError(`${name} must hold a JSON object`)
  return value
}

/** Parses tokenizer.json and checks what would otherwise fail later without a hint at the cause. */
export function parseTokenizerJson(text: string): TokenizerJson {
  const json = parseObject(text, 'tokenizer.json')
  const model = json.model
  if (!isObject(model)) throw new UserError('tokenizer.json has no "model" object')
  const vocab = model.vocab
  if (Array.isArray(vocab)) {
    if (vocab.some((entry) => !Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number')) {
      throw new UserError('tokenizer.json: model.vocab must list pairs of a token and its score')
    }
  } else if (isObject(vocab)) {
    for (const [token, id] of Object.entries(vocab)) checkId(id, token)
  } else {
    throw new UserError('tokenizer.json has no "model.vocab"')
  }
  const added: unknown = json.added_tokens ?? []
  if (!Array.isArray(added)) throw new UserError('tokenizer.json: added_tokens must be a list')
  for (const token of added) {
    if (!isObject(token) || typeof token.content !== 'string' || token.content === '') {
      throw new UserError('tokenizer.json: every added token needs a non-empty string "content"')
    }
    checkId(token.id, token.content)
  }
  checkSteps(json)
  return {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...json,
    model,
    added_tokens: added,
  }
}

/** Characters that a normaliser may make of one; those in use make one or two. */
const MOST_GROWTH = 64
const MOST_STEPS = 256

/** A normalizer, pre-tokenizer or decoder and, of sequences, all of their parts, each with its place in the file. */
function* stepsAt(node: unknown, path: string, depth = 0): Generator<{ step: Json; path: string }> {
  if (!isObject(node)) return
  if (depth > 16) throw new UserError(`tokenizer.json: ${path}: sequences lie in sequences too often`)
  yield { step: node, path }
  for (const key of ['normalizers', 'pretokenizers', 'decoders']) {
    const parts = node[key]
    if (Array.isArray(parts))
      for (const [i, part] of parts.entries()) yield* stepsAt(part, `${path}.${key}.${i}`, depth + 1)
  }
}

/** Refuses patterns that are none, and normalisers that make a short text a long one: each step may multiply what the one before made. */
function checkSteps(json: Json): void {
  let growth = 1
  let steps = 0
  for (const name of ['normalizer', 'pre_tokenizer', 'decoder'])
    for (const { step, path } of stepsAt(json[name], name)) {
      if (++steps > MOST_STEPS) throw new UserError(`tokenizer.json: its ${name} has too many steps`)
      if (step.type === 'Replace' || step.type === 'Split') checkPattern(step.pattern, `${path}.pattern`)
      if (step.type === 'Replace' && name !== 'decoder') growth *= growthOf(step)
    }
  if (growth > MOST_GROWTH)
    throw new UserError(
      `tokenizer.json: its normalizer makes up to ${growth} characters of one; at most ${MOST_GROWTH} are accepted`,
    )
}

function checkPattern(pattern: unknown, path: string): void {
  const text = isObject(pattern) ? (pattern.Regex ?? pattern.String) : undefined
  if (typeof text !== 'string')
    throw new UserError(`tokenizer.json: ${path}: expected an object with a text "Regex" or "String"`)
}

/** The most characters that a replacement makes of one. */
function growthOf({ pattern, content }: Json): number {
  const length = typeof content === 'string' ? content.length : 0
  const text = isObject(pattern) && typeof pattern.String === 'string' ? pattern.String.length : 1
  return Math.max(1, length / Math.max(1, text))
}

function checkId(id: unknown, token: string): void {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID) {
    throw new UserError(`tokenizer.json: token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}`)
  }
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
