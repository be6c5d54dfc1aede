// Gives a model its mask token: the id, and where it is a new one its row in the embedding and its place in the tokenizer.

import type { LoadedModel } from '../checkpoint/load.ts'
import { type InferenceParameter, UserError } from '../core/types.ts'
import { chooseMaskToken, growEmbedding, type MaskToken } from '../diffusion/mask-token.ts'
import { createModel } from '../models/index.ts'
import { floatValues } from '../quant/layout.ts'
import { addSpecialToken } from '../tokenizer/add-token.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import type { Tokenizer } from '../tokenizer/types.ts'

/**
 * The model with a mask token, recorded as `mask_token_id` in its config. `configured` is a token or an id; without it
 * the one of the model is kept, or one is chosen (`chooseMaskToken`).
 * Throws UserError where the tokenizer does not know the configured token.
 */
export function withMaskToken(
  loaded: LoadedModel<InferenceParameter>,
  configured?: string | number,
): { loaded: LoadedModel<InferenceParameter>; maskToken: MaskToken } {
  const { model, tokenizer } = loaded
  const { config } = model
  const rows = model.dimensions.vocabSize
  const maskToken = maskTokenOf(loaded, configured)
  const { id, token, source } = maskToken
  const grown = Math.max(rows, id + 1)
  const changed = createModel({ ...config, vocab_size: grown, mask_token_id: id })
  if (source !== 'added') return { loaded: { ...loaded, model: changed }, maskToken }

  const parameters = new Map(loaded.parameters)
  for (const [name, shape] of changed.parameters) {
    const before = loaded.parameters.get(name)!
    // One more row have the embedding and, where it is not tied, the output head.
    if (before.shape[0] === shape[0]) continue
    const grow = (values: Float32Array) => ({ shape, data: growEmbedding(values, shape[1]!, id) })
    const read = async () => grow(await floatValues(before))
    parameters.set(name, 'data' in before ? grow(before.data) : { shape, format: undefined, read })
  }
  const files = addSpecialToken(tokenizer.files(), { id, content: token, role: 'mask_token' })
  return { loaded: { ...loaded, model: changed, parameters, tokenizer: loadTokenizer(files) }, maskToken }
}

/** The mask token that `withMaskToken` gives a model. */
export function maskTokenOf(
  { model: { config, dimensions }, tokenizer, generationConfig }: Omit<LoadedModel, 'parameters'>,
  configured?: string | number,
): MaskToken {
  const known = typeof config.mask_token_id === 'number' ? config.mask_token_id : undefined
  const wanted = typeof configured === 'string' ? idOf(tokenizer, configured) : (configured ?? known)
  return chooseMaskToken(tokenizer, {
    rows: dimensions.vocabSize,
    configured: wanted,
    inUse: endTokens({ tokenizer, model: { config }, generationConfig }),
  })
}

function idOf(tokenizer: Tokenizer, token: string): number {
  const id = tokenizer.tokenToId(token)
  if (id === undefined) {
    throw new UserError(
      `mask_token ${JSON.stringify(token)} is not in the tokenizer; name one that is, or leave it out`,
    )
  }
  return id
}
