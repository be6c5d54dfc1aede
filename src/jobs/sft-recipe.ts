// The recipe of supervised fine-tuning: that of `convert`, with the model's own objective and settings that answers are trained
// with. Reads no files.
import { type ModelConfig, UserError } from '../core/types.ts'
import { isRecord } from '../formats/json.ts'
import { objectiveOf, type TrainedObjective, trainedObjectives } from '../objectives/index.ts'
import { type Origin, parseRecipe, type Recipe, recipeSettings, type Setting } from './recipe.ts'

/** Where fine-tuning differs from a conversion, whatever the model. */
const TRAIN = { lr: 1e-4 }

/** The same for models of objective `diffusion`, as LLaDA2's fine-tuning has it (dFactory). */
const DIFFUSION = {
  schedule: 'constant',
  noise_range_low: 0.3,
  noise_range_high: 0.8,
  copies: 2,
  complementary_masking: true,
  loss_weighting: 'mean',
}

/** Settings that the model's config.json says, by objective. */
const ofModel: Readonly<Record<TrainedObjective, readonly string[]>> = {
  diffusion: ['block_size', 'same_token_labels'],
  hybrid: ['block_size'],
  ar: [],
}

/** What a recipe of fine-tuning takes for what it does not say. */
function defaultsOf(config: ModelConfig, { diffusion: given }: Record<string, unknown>): Record<string, unknown> {
  const objective = objectiveOf(config)
  const own = Object.fromEntries(
    ofModel[objective].filter((key) => config[key] !== undefined).map((key) => [key, config[key]]),
  )
  const copies = isRecord(given) && typeof given.copies === 'number' ? given.copies : DIFFUSION.copies
  const isGrouped = isRecord(given) && typeof given.group_size === 'number' && given.group_size > 1
  const noise = { ...DIFFUSION, complementary_masking: copies % 2 === 0 && !isGrouped }
  return {
    objective,
    train: TRAIN,
    ...(objective === 'ar' ? {} : { diffusion: { ...(objective === 'diffusion' ? noise : {}), ...own } }),
  }
}

/** `value` with what it leaves out of `defaults`, section by section. */
function filledIn(value: Record<string, unknown>, defaults: Record<string, unknown>): Record<string, unknown> {
  const out = { ...value }
  for (const [key, other] of Object.entries(defaults)) {
    const own = out[key]
    if (own === undefined) out[key] = other
    else if (isRecord(own) && isRecord(other)) out[key] = filledIn(own, other)
  }
  return out
}

/**
 * `parseRecipe` for fine-tuning a model with this config.json: what the recipe leaves out is as the model has it, or as
 * answers are trained. Throws UserError as that does, and where the recipe wants another objective than the model's.
 */
export function parseSftRecipe(value: unknown, config: ModelConfig, origin: Origin = (path) => path): Recipe {
  if (!isRecord(value)) return parseRecipe(value, origin)
  const own = objectiveOf(config)
  const { objective = own, model } = value
  if (objective !== own && trainedObjectives.some((known) => known === objective))
    throw new UserError(
      `${origin('objective')}: ${objective}, but ${model} is a model of objective ${own}, which fine-tuning keeps: leave it ` +
        'out, or change the model with unmask convert',
    )
  const recipe = parseRecipe(filledIn(value, defaultsOf(config, value)), origin)
  if (recipe.init === 'random')
    throw new UserError(`${origin('init')}: random weights cannot be fine-tuned: leave it out, or use unmask convert`)
  return recipe
}

/** The settings of a recipe with the defaults of fine-tuning. */
export function sftSettings(): Setting[] {
  const fixed = filledIn({ train: TRAIN }, { diffusion: DIFFUSION }) as Record<string, Record<string, unknown>>
  const models = new Set([
    'objective',
    ...Object.values(ofModel).flatMap((keys) => keys.map((key) => `diffusion.${key}`)),
  ])
  return recipeSettings()
    .filter(({ path }) => path !== 'init' && path !== 'eval.from_random' && path !== 'diffusion.shares')
    .map((setting) => {
      if (models.has(setting.path)) return { ...setting, default: "the model's" }
      const [section = '', key = ''] = setting.path.split('.')
      const other = fixed[section]?.[key]
      return other === undefined ? setting : { ...setting, default: other }
    })
}
