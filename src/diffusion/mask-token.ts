// The mask token of a converted model: which id it is, its embedding where it has none, and the noise on it.
// Knows nothing about graphs or files.

import { UserError } from '../core/types.ts'
import type { Tokenizer } from '../tokenizer/types.ts'

/** What `mask_token_id` becomes, and what must be done to the model and the tokenizer for it. */
export interface MaskToken {
  id: number
  token: string
  /** `unused`: a special token that is there already; `added`: the tokenizer needs `token` added at `id`. */
  source: 'configured' | 'unused' | 'added'
}

/** What choosing looks at. */
export type TokenNames = Pick<
  Tokenizer,
  'vocabSize' | 'bosTokenId' | 'eosTokenId' | 'padTokenId' | 'specialTokenIds' | 'chatTemplate' | 'idToToken'
>

/** Name of the token that is added where the tokenizer has no unused special token. */
const addedMaskToken = '<|mask|>'

// Compared with the name in lower case, its brackets, bars and separators at the ends stripped.
const inUse: readonly RegExp[] = [
  /^(unk|unknown|s|bos|eos|pad|padding|cls|sep|eot|eom|eod|turn|eot_id|eom_id)$/,
  /^(begin|end|start)_?of_?(text|sequence|sentence|turn|message|prompt|response)$/,
  /(start|end)oftext|im_(start|end|sep)|(start|end)_header|finetune.*pad/,
  /system|user|human|assistant|role|tool|function|python|think|fim_|(^|_)(prefix|middle|suffix)$/,
]
const byPreference: readonly RegExp[] = [/mask/, /reserved/, /unused/, /extra|dummy|placeholder|not_used/]

/**
 * Chooses the mask token (the embedding rows of a model are left as they are wherever that is possible).
 *
 * In this order: `configured`, the `mask_token_id` of a model that has one; else the special token of lowest id among
 * those whose name says mask, then reserved, then unused, then extra, dummy or placeholder, then any other special token,
 * such as the repository and notebook markers of SmolLM2; else a new token `<|mask|>` behind the tokenizer's last id.
 * Never taken: bos, eos, pad, unk and their kin, tokens of `inUse` (for example further EOS ids), tokens that the chat
 * template writes or that are named after a role, a tool, reasoning or fill-in-the-middle, ids without an embedding row.
 *
 * @param rows Rows of the model's embedding; at least the tokenizer's ids.
 * @throws UserError where `configured` is not an id of the model.
 */
export function chooseMaskToken(
  tokenizer: TokenNames,
  options: { rows: number; configured?: number; inUse?: readonly number[] },
): MaskToken {
  const { rows, configured } = options
  if (configured !== undefined) {
    if (!(Number.isInteger(configured) && configured >= 0 && configured < rows)) {
      throw new UserError(`mask_token_id is ${configured}, but the model has ${rows} embedding rows.`)
    }
    return { id: configured, token: tokenizer.idToToken(configured) ?? addedMaskToken, source: 'configured' }
  }

  const taken = new Set([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId, ...(options.inUse ?? [])])
  const free: { id: number; token: string; name: string }[] = []
  for (const id of tokenizer.specialTokenIds) {
    const token = tokenizer.idToToken(id)
    if (token === undefined || id >= rows || taken.has(id) || tokenizer.chatTemplate?.includes(token)) continue
    const name = token.toLowerCase().replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '')
    if (!inUse.some((pattern) => pattern.test(name))) free.push({ id, token, name })
  }
  for (const pattern of byPreference) {
    const named = free.find(({ name }) => pattern.test(name))
    if (named) return { id: named.id, token: named.token, source: 'unused' }
  }
  const first = free[0]
  if (first) return { id: first.id, token: first.token, source: 'unused' }
  return { id: tokenizer.vocabSize, token: addedMaskToken, source: 'added' }
}

/**
 * Gives an added token its embedding: the mean of the rows before it.
 *
 * @param embedding [rows, hidden]; not changed.
 * @returns [max(rows, id + 1), hidden]: a copy in which row `id` is the mean of rows 0 .. id - 1. Rows that a model keeps
 * behind its tokenizer's ids stay where they are.
 */
export function growEmbedding(embedding: Float32Array, hidden: number, id: number): Float32Array {
  const rows = embedding.length / hidden
  if (!Number.isInteger(rows) || id < 1 || id > rows) {
    throw new UserError(`An embedding of ${embedding.length} values in rows of ${hidden} cannot get a token ${id}.`)
  }
  const grown = new Float32Array(Math.max(rows, id + 1) * hidden)
  grown.set(embedding)
  const sums = new Float64Array(hidden)
  for (let row = 0; row < id; row++) {
    for (let column = 0; column < hidden; column++) sums[column]! += embedding[row * hidden + column]!
  }
  for (let column = 0; column < hidden; column++) grown[id * hidden + column] = sums[column]! / id
  return grown
}

/** Gaussian noise on the embedding output at masked positions during the first steps (LLaDA2.0, section 7.1). */
export interface EmbeddingNoise {
  /** Standard deviation at the first step, in units of the embedding's entries. 0 for none. */
  sigma: number
  /** Steps after which there is none. */
  steps: number
  /** How it falls until then. The sources publish none of the three values. */
  decay: 'linear' | 'cosine' | 'constant'
}

/** Standard deviation of the noise at a step, counting from 0. */
export function embeddingNoise(step: number, { sigma, steps, decay }: EmbeddingNoise): number {
  if (step >= steps) return 0
  const progress = step / steps
  if (decay === 'constant') return sigma
  return decay === 'linear' ? sigma * (1 - progress) : sigma * 0.5 * (1 + Math.cos(Math.PI * progress))
}
