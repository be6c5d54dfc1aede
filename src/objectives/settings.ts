// Settings of masked diffusion as a recipe has them: names, ranges, defaults, help, and what they are to the objectives.
import * as z from 'zod'
import { turnRules } from '../diffusion/turns.ts'
import type { DenoisingSettings } from './denoising.ts'
import type { PreferenceSettings } from './dpo.ts'

const share = z.number().min(0).max(1)

/** As Nemotron-Labs-Diffusion has it. */
const DIFFUSION_WEIGHT = 0.3

/** As VRPO has it. */
const DRAWS = 8

export const denoisingFields = {
  noise_range_low: share.default(0).describe('lowest mask ratio t'),
  noise_range_high: share.default(1).describe('highest mask ratio t'),
  noise_per: z
    .enum(['block', 'sequence'])
    .default('block')
    .describe('draw the mask ratio per block or per document (always per document where a block is the row)'),
  copies: z
    .number()
    .positive()
    .default(1)
    .describe('noised copies that share one clean copy of a row; with objective hybrid, masks per token of a row'),
  complementary_masking: z
    .boolean()
    .default(false)
    .describe('the second copy of a pair masks what the first left clean; needs an even number of copies'),
  loss_weighting: z
    .enum(['elbo', 'mean'])
    .default('elbo')
    .describe('elbo: 1/t over all maskable tokens; mean: average over the masked tokens'),
  same_token_labels: z
    .boolean()
    .default(true)
    .describe(
      'true: the state at a position predicts its own token; false: it predicts the next one, as in the autoregressive ' +
        'base, which keeps more of it when there are few tokens to train on',
    ),
  supervise_padding: z
    .boolean()
    .default(true)
    .describe(
      'train on the EOS padding that fills the last block of a document too; its loss is reported apart, and it is never ' +
        'part of a likelihood',
    ),
  turns_in_block: z
    .enum(turnRules)
    .default('apart')
    .describe(
      'turns of a chat that share a block: apart: each is trained without those behind it; first: only the first of a block is ' +
        'trained; together: they see each other, as they never do in decoding',
    ),
  diffusion_loss_weight: z
    .number()
    .positive()
    .default(DIFFUSION_WEIGHT)
    .describe('objective hybrid: weight of the diffusion loss beside the next-token loss'),
  confidence_beta: z
    .number()
    .min(0)
    .default(0)
    .describe(
      'weight of the entropy at masks whose prediction is right (CAP), which makes the model surer of it, so that it decodes ' +
        'more tokens per forward; 0: none',
    ),
  confidence_temperature: z
    .number()
    .positive()
    .default(1)
    .describe('divides the logits before that entropy; below 1 it acts on the predictions that are less sure'),
  own_predictions: share
    .default(0)
    .describe(
      'share of the noised blocks whose masks hold what the model predicts there, as it is at the time; DMax trains so (on-policy ' +
        'uniform training) for strategy soft, LLaDA2.1 for edit',
    ),
  own_turns: z
    .int()
    .min(1)
    .max(8)
    .default(1)
    .describe('forwards that make those predictions, each from what the one before it left'),
  corrupted_tokens: share
    .default(0)
    .describe('share of the visible tokens that are replaced by others, which the model learns to correct'),
  group_size: z
    .int()
    .min(1)
    .default(1)
    .describe(
      'most neighbouring blocks that are noised together, each seeing those before it as they are noised (multi-block ' +
        'teacher forcing), so that decoding may refine as many at a time; 1: each block sees clean text alone',
    ),
  position_dependent: z
    .number()
    .min(0)
    .default(0)
    .describe('how much longer later tokens of a block stay masked; 0: no longer than others'),
}

/** The settings of the objectives that a recipe's section `diffusion` holds. */
export const denoisingOf = (
  section: z.output<z.ZodObject<typeof denoisingFields>>,
): Pick<DenoisingSettings, 'weighting' | 'noise' | 'shift' | 'turns' | 'diffusionWeight' | 'confidence'> => ({
  weighting: section.loss_weighting,
  noise: {
    copies: section.copies,
    complementary: section.complementary_masking,
    noiseRangeLow: section.noise_range_low,
    noiseRangeHigh: section.noise_range_high,
    perBlock: section.noise_per === 'block',
    positionDependent: section.position_dependent,
    supervisePadding: section.supervise_padding,
    groupSize: section.group_size,
    ownPredictions: section.own_predictions,
    ownTurns: section.own_turns,
    corruptedTokens: section.corrupted_tokens,
  },
  shift: !section.same_token_labels,
  turns: section.turns_in_block,
  diffusionWeight: section.diffusion_loss_weight,
  confidence:
    section.confidence_beta > 0
      ? { beta: section.confidence_beta, temperature: section.confidence_temperature }
      : undefined,
})

/** Settings of preference training, which a recipe's section `preference` holds. */
export const preferenceFields = {
  beta: z.number().positive().default(0.1).describe('how far the model may move from the reference: less, the higher'),
  label_smoothing: z
    .number()
    .min(0)
    .lt(0.5)
    .default(0)
    .describe('share of the pairs that may be labelled the wrong way round'),
  draws: z
    .int()
    .min(1)
    .default(DRAWS)
    .describe(
      'noised copies that each answer is measured with; 1: DPO of LLaDA2.0; more: VRPO. The reference is measured with the ' +
        'same masks',
    ),
  antithetic: z
    .boolean()
    .default(false)
    .describe('every second draw masks what the one before it shows; needs even draws'),
  length_normalization: z
    .boolean()
    .default(false)
    .describe('divide log-likelihoods by the tokens of the answer; DPO, as published, does not'),
}

/** The settings of the objective `dpo` that a recipe's section `preference` holds. */
export const preferenceOf = (section: z.output<z.ZodObject<typeof preferenceFields>>): PreferenceSettings => ({
  beta: section.beta,
  labelSmoothing: section.label_smoothing,
  draws: section.draws,
  antithetic: section.antithetic,
  lengthNormalization: section.length_normalization,
})

/** Settings of reinforcement learning, which a recipe's section `policy` holds. */
export const policyFields = {
  questions: z.int().min(1).default(16).describe('questions of a step'),
  group: z.int().min(2).default(8).describe('answers to each question, which are compared with each other'),
  updates: z.int().min(1).default(1).describe('updates with the answers of a step'),
  clip: z
    .number()
    .positive()
    .lt(1)
    .default(0.2)
    .describe('how far the probability of a token may move from that of the answer, as a share'),
  strategy: z
    .enum(['threshold', 'fixed'])
    .default('threshold')
    .describe('how answers are written: what is sure enough, or a number of tokens per forward'),
  threshold: share.optional().describe('strategy threshold: probability above which tokens are written (default: 0.9)'),
  tokens_per_step: z.int().min(1).optional().describe('strategy fixed: tokens of a forward (default: 1)'),
  max_new_tokens: z.int().min(1).default(64).describe('most tokens of an answer'),
}
