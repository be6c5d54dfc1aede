// Which tokens end a text that a model writes. Whatever cuts, scores or fills text asks here. Uses no Node API.

import type { Tokenizer } from './types.ts'

/** Where models name the tokens that end a text: an id or a list of them, each place with its own. */
export interface EndTokenSources {
  tokenizer: Pick<Tokenizer, 'eosTokenId'>
  model: { config: Readonly<Record<string, unknown>> }
  /** generation_config.json; of a GGUF file what llama.cpp would end at. */
  generationConfig: Readonly<Record<string, unknown>> | undefined
}

/**
 * Ids of all tokens that end a text: the tokenizer's EOS first, with which training closes documents, then those of
 * generation_config.json and config.json (for example the mark that ends a turn of a chat).
 */
export function endTokens({ tokenizer, model, generationConfig }: EndTokenSources): number[] {
  const named = [tokenizer.eosTokenId, generationConfig?.eos_token_id, model.config.eos_token_id].flat()
  return [...new Set(named.filter((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0))]
}
