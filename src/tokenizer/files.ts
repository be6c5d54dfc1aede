// Reads and checks the JSON files of a tokenizer. Does not know what is done with them.
import { UserError } from '../core/types.ts'

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

function checkId(id: unknown, token: string): void {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID) {
    throw new UserError(`tokenizer.json: token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}`)
  }
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
