// How blocks are decoded: the settings of a request, checked against each other and against the model.

import { SettingError, UserError } from '../core/types.ts'
import type { Dimensions } from '../models/types.ts'
import type { BlockSettings } from './blocks/index.ts'
import type { GenerateOptions } from './engine.ts'
import { createPredictor } from './predict.ts'
import { checkSampling, needsLogits, type SamplingOptions } from './sampling.ts'
import { checkSettings, type DecodingSettings, givenSettings, resolveSettings } from './settings.ts'
import { createStrategy } from './strategies/index.ts'

/** What decoding in blocks needs to know of a model. */
export interface BlockModel {
  dimensions: Dimensions
  maskTokenId: number | undefined
  shift: boolean
  softStates: boolean
  /** The model was trained with blocks noised in groups: predictions of a mask count across blocks, too. */
  noisedGroups: boolean
}

/** Throws UserError for options that make no sense. Tokens of `forbiddenAt` are not written at a position. */
export function blockSettings(
  { dimensions, maskTokenId, shift, softStates, noisedGroups }: BlockModel,
  options: GenerateOptions,
  forbiddenAt?: (position: number) => readonly number[],
): BlockSettings {
  checkOptions(options, dimensions)
  const resolved = resolveSettings(options)
  const { strategy: name, blockSize, reuse, selfVerify, logitScale } = resolved
  const bufferSize = resolved.bufferSize!
  if (options.activation !== undefined && bufferSize === 1)
    throw new SettingError(
      'activation',
      (nameOf) => `says when a further block joins the buffer, but ${nameOf('bufferSize')} is 1`,
    )
  const strategy = createStrategy(name, resolved)
  if (strategy.softStates && !softStates)
    throw new SettingError(
      'strategy',
      `${name} is for models of on-policy uniform training, such as DMax's, whose config.json says "soft_states": true; this one's does not`,
    )
  if (strategy.edits && reuse)
    throw new SettingError(
      ['strategy', 'reuse'],
      `${name} looks at tokens again whose rows are left out: choose one of them`,
    )
  if (maskTokenId === undefined)
    throw new UserError(
      'block decoding needs a mask token: this model is autoregressive (its config.json has no mask_token_id); convert it first, or decode it autoregressively',
    )
  if (blockSize === undefined) throw new SettingError('blockSize', 'is needed to decode in blocks')
  if (selfVerify !== undefined) {
    if (forbiddenAt)
      throw new SettingError('selfVerify', 'is for new text: leave it out when a text is filled or corrected')
    const alone = 'self-verification is for greedy decoding of one block at a time: choose one of them'
    if (strategy.edits) throw new SettingError(['selfVerify', 'strategy'], alone)
    if (bufferSize > 1) throw new SettingError(['selfVerify', 'bufferSize'], alone)
    if (reuse) throw new SettingError(['selfVerify', 'reuse'], alone)
    const wrong = options.constraint
      ? 'constraint'
      : needsLogits(options) && 'sampling, penalties, biases or log-probabilities'
    if (wrong) throw new SettingError('selfVerify', `is for greedy decoding of one block at a time: leave out ${wrong}`)
  }
  const logits = (strategy.needsLogits ?? false) || options.constraint !== undefined
  return {
    strategy,
    predictor: createPredictor(options, { forbidden: [maskTokenId], forbiddenAt, logits }),
    maskTokenId,
    shift,
    waits: shift && !noisedGroups,
    bufferSize,
    activation: resolved.activation ?? 0,
    reuse: reuse!,
    selfVerify,
    logitScale,
    signal: options.signal,
  }
}

export function checkOptions(options: DecodingSettings & SamplingOptions, { vocabSize }: Dimensions): void {
  checkSettings(givenSettings(options))
  checkSampling(options, vocabSize)
}
