// What makes no sense to decode: prompts, texts and numbers that do not fit the model.

import { SettingError, UserError } from '../core/types.ts'
import type { Dimensions } from '../models/types.ts'

export function checkPrompt(prompt: readonly number[], dimensions: Dimensions): void {
  const { maxPositions } = dimensions
  if (prompt.length >= maxPositions)
    throw new UserError(
      `the prompt has ${prompt.length} tokens, but the model's ${maxPositions} positions must also hold the answer; shorten it`,
    )
  checkIds(prompt, dimensions, 'the prompt')
}

/** A prompt of which the first token predicts the second. */
export function checkAutoregressivePrompt(prompt: readonly number[], dimensions: Dimensions): void {
  checkPrompt(prompt, dimensions)
  if (prompt.length === 0) throw new UserError('autoregressive decoding needs a prompt of at least one token')
}

export function checkText(ids: readonly number[], dimensions: Dimensions): void {
  if (ids.length > dimensions.maxPositions)
    throw new UserError(
      `the text has ${ids.length} tokens, but the model ${dimensions.maxPositions} positions; shorten it`,
    )
  checkIds(ids, dimensions, 'the text')
}

export function checkIds(ids: readonly number[], { vocabSize }: Dimensions, what: string): void {
  for (const id of ids)
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw new UserError(`${what} holds the token id ${id}, but the model's vocabulary has ${vocabSize} entries`)
}

export function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new SettingError(name, `expected a whole number of at least 1, not ${value}`)
}
