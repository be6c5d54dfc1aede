// Settings of what a run costs and of its model card, as a recipe has them: names, ranges, defaults, help.
import * as z from 'zod'

const amount = z.number().min(0)

/** Section `cost` of a recipe. A run may be resumed with others. */
export const costSettings = z.strictObject({
  watts: amount
    .default(65)
    .describe('power in watts that energy is estimated from where the machine reports none; 65 is a desktop processor'),
  price_per_kwh: amount.default(0.3).describe('price of a kilowatt hour'),
  price_per_hour: amount.default(0).describe('price of an hour of the machine, its energy not counted'),
  currency: z.string().min(1).max(16).default('USD').describe('currency of the prices'),
  co2_per_kwh: amount
    .default(0.48)
    .describe("kilograms of CO2 for a kilowatt hour; 0.48 is about the world's mix of 2023 (Ember)"),
})

export type CostSettings = z.output<typeof costSettings>

/** Section `card` of a recipe. */
export const cardSettings = z.strictObject({
  license: z
    .string()
    .regex(/^[\w.+-]+$/, 'expected an identifier such as apache-2.0')
    .optional()
    .describe("licence of the trained model, for its card (default: the base's, where it says one)"),
  datasets: z
    .array(
      z.string().regex(/^[\w.-]+(\/[\w.-]+)?$/, 'expected the name of a data set on the Hub, such as openai/gsm8k'),
    )
    .default([])
    .describe('names on the Hub of the data sets that were trained on, for the card'),
})

export type CardSettings = z.output<typeof cardSettings>
