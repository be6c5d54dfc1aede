// Reads the JSON files of a tokenizer and prepares tokenizer.json for @huggingface/tokenizers.
// Does not know what is done with the tokenizer.
import { UserError } from '../types.ts'

type Json = Record<string, unknown>

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

/**
 * The same tokenizer in a form that @huggingface/tokenizers reads correctly and fast. Two things are rewritten:
 *
 * - `Digits`: the Rust library takes every Unicode number (\p{N}) for a digit, the JavaScript one only 0-9, so `m²` and
 *   `٣` would get other ids. An equivalent `Split` says what is meant.
 * - BPE without a pre-tokenizer (Llama 2 style) merges the whole document as one word. Where no token continues from
 *   another character into `▁`, no merge can cross that boundary, so splitting there gives the same ids and lets the
 *   library's word cache work.
 */
export function forLibrary(json: TokenizerJson): TokenizerJson {
  const rewritten = { ...json, pre_tokenizer: rewriteDigits(json.pre_tokenizer) }
  if (rewritten.pre_tokenizer === null && splitsBeforeSpaces(json.model)) {
    rewritten.pre_tokenizer = {
      type: 'Split',
      pattern: { Regex: '▁+[^▁]*|[^▁]+' },
      behavior: 'Isolated',
      invert: false,
    }
  }
  return rewritten
}

function rewriteDigits(preTokenizer: unknown): unknown {
  if (!isObject(preTokenizer)) return preTokenizer
  if (preTokenizer.type === 'Sequence' && Array.isArray(preTokenizer.pretokenizers)) {
    return { ...preTokenizer, pretokenizers: preTokenizer.pretokenizers.map(rewriteDigits) }
  }
  if (preTokenizer.type === 'Digits') {
    const pattern = { Regex: preTokenizer.individual_digits === true ? '\\p{N}' : '\\p{N}+' }
    return { type: 'Split', pattern, behavior: 'Isolated', invert: false }
  }
  return preTokenizer
}

function splitsBeforeSpaces(model: Json): boolean {
  if (model.type !== 'BPE' || !isObject(model.vocab) || model.ignore_merges === true) return false
  if (model.end_of_word_suffix || model.continuing_subword_prefix) return false
  return Object.keys(model.vocab).every((token) => !/[^▁]▁/u.test(token))
}

function checkId(id: unknown, token: string): void {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID) {
    throw new UserError(`tokenizer.json: token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}`)
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
