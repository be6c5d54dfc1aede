// How clients say which tokens are chosen: one object of fields for every route that generates, and what the engine makes of
// it. Knows no route, and uses no Node API.
import * as z from 'zod'
import { random } from '../core/random.ts'
import type { NameOf } from '../core/types.ts'
import { bodyFields, requestSettings, unmaskFields } from '../decode/settings-zod.ts'
import { table } from '../formats/list.ts'
import type { Sampling } from './worker/protocol.ts'

const unmask = z
  .strictObject({
    unmasking: z.boolean().default(false).describe('stream every committed token with position, step and confidence'),
    ...unmaskFields,
  })
  .describe('what block diffusion adds; not part of the OpenAI API')

const penalty = z
  .literal(0, 'is not supported: use repetition_penalty')
  .nullish()
  .describe('only 0: use repetition_penalty')

export const decodingFields = {
  ...bodyFields,
  seed: z
    .number()
    .min(-(2 ** 63))
    .max(2 ** 63)
    .refine(Number.isInteger, 'expected a whole number')
    .nullish()
    .describe('whole number of 64 bits: the same seed gives the same answer on the same machine'),
  logit_bias: table(z.string().regex(/^\d{1,9}$/, 'keys are token ids'), z.number().min(-100).max(100), 1024).nullish(),
  frequency_penalty: penalty,
  presence_penalty: penalty,
  unmask: unmask.nullish(),
}

export type DecodingFields = z.output<z.ZodObject<typeof decodingFields>>

/** The engine's name of a field. */
const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** The settings of choice `index` of a request. Without a seed each choice is drawn anew. */
export function samplingOf({ seed, logit_bias, unmask, ...fields }: DecodingFields, index: number): Sampling {
  return {
    ...requestSettings(fields, unmask ?? {}),
    seed: seedOf(seed ?? randomSeed(), index),
    logitBias: logit_bias ? Object.entries(logit_bias).map(([id, bias]) => [Number(id), bias]) : undefined,
  }
}

/** A whole number below 2^48. */
const randomSeed = (): number => Number(crypto.getRandomValues(new BigUint64Array(1))[0] >> 16n)

/** Separates the seeds of further choices from what else is drawn from a seed. */
const CHOICE_STREAM = 0x63686f69

/**
 * The engine's seed, in [0, 2^53), of choice `index`. Seeds that are less than 2^53 apart stay different; the first choice of
 * a seed from 0 on has the seed itself, and further choices none of a neighbour's.
 */
export function seedOf(seed: number, index: number): number {
  const whole = Number(BigInt.asUintN(53, BigInt(seed)))
  if (index === 0) return whole
  const draw = random(whole, CHOICE_STREAM, index)
  return draw.uint32() * 2 ** 21 + (draw.uint32() >>> 11)
}

/** Names as clients know them, by those of the engine. */
const apiNames = new Map<string, string>(
  [...Object.keys(decodingFields), ...Object.keys(unmask.shape).map((name) => `unmask.${name}`)].map((name) => [
    camelCase(name.replace(/^unmask\./, '')),
    name,
  ]),
)

/** What a client calls a setting of the engine. */
export const apiName: NameOf = (name) => apiNames.get(name) ?? name
