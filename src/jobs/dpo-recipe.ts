// The recipe of preference training: the sections of a conversion with pairs instead of texts, and epochs instead of tokens.
// Reads no files.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check } from '../formats/check.ts'
import { preferenceFields } from '../objectives/settings.ts'
import {
  accountSections,
  data,
  lora,
  type Origin,
  oneOrMore,
  path,
  positive,
  problemLines,
  train,
  trainConflicts,
  whole,
} from './recipe.ts'

const preferenceData = z.strictObject({
  train_path: oneOrMore(path).describe('pairs to train on: files, folders or globs of .jsonl and .parquet'),
  validation_path: oneOrMore(path)
    .optional()
    .describe('held-out pairs; without it those of a part of the prompts are held out'),
  validation_fraction: data.shape.validation_fraction.describe(
    'share of the prompts held out, chosen by a hash of each',
  ),
  validation_pairs: whole.default(256).describe('held-out pairs that each evaluation reads'),
  max_seq_len: data.shape.max_seq_len.describe(
    'most tokens of a prompt with its answer; the end of a longer one is cut off',
  ),
  columns: z
    .strictObject({
      prompt: z.string().optional().describe('name of the column that holds the prompt'),
      chosen: z.string().optional().describe('name of the column that holds the better answer'),
      rejected: z.string().optional().describe('name of the column that holds the worse answer'),
    })
    .prefault({}),
  template: data.shape.template,
  separator: data.shape.separator,
  turns: data.shape.turns.describe('assistant turns behind the prompt that count'),
  bad_rows: z.enum(['skip', 'fail']).default('fail').describe('count rows that are no pairs, or stop at the first'),
})

const { total_tokens: _, ...preferenceTraining } = train.shape

export const preferenceSchema = z.strictObject({
  model: z.string().min(1).describe('model to train, which is the reference too: folder, file or Hub repository'),
  output_dir: z.string().min(1).describe('folder that receives the model, checkpoints and metrics'),
  threads: z.int().min(0).default(0).describe('threads of the executor; 0 for one per core'),
  data: preferenceData,
  train: z
    .strictObject({
      ...preferenceTraining,
      epochs: positive.default(1).describe('times that each pair is trained on'),
      micro_batch_size: whole
        .default(1)
        .describe('pairs of the greatest length in one forward and backward pass; of shorter ones there are more'),
      global_batch_size: whole.default(8).describe('the same of one optimiser step; a multiple of micro_batch_size'),
      lr: positive.default(5e-6).describe('highest learning rate; low-rank weights want about ten times more'),
    })
    .prefault({}),
  preference: z
    .strictObject({
      ...preferenceFields,
      validation_draws: whole
        .default(8)
        .describe('noised copies that a held-out answer is measured with, taken in pairs'),
      reference_cache: path
        .optional()
        .describe('folder of the likelihoods under the reference, which runs may share (default: in output_dir)'),
    })
    .prefault({}),
  lora: lora.prefault({}),
  ...accountSections,
})

export type PreferenceRecipe = z.output<typeof preferenceSchema>
export type PreferenceRecipeInput = z.input<typeof preferenceSchema>

/** Checks a recipe and fills in its defaults. Errors as in `parseRecipe`. */
export function parsePreferenceRecipe(value: unknown, origin: Origin = (path) => path): PreferenceRecipe {
  const result = check(preferenceSchema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin, preferenceSchema).join('\n'))
  const { train, preference, lora } = result.data
  const conflicts = trainConflicts(train)
  if (preference.antithetic && preference.draws % 2 !== 0)
    conflicts.push({ path: 'preference.antithetic', message: `needs even preference.draws, not ${preference.draws}` })
  if (lora.dora && lora.rank === 0)
    conflicts.push({ path: 'lora.dora', message: 'changes low-rank weights: needs lora.rank' })
  if (conflicts.length > 0)
    throw new UserError(conflicts.map(({ path, message }) => `${origin(path)}: ${message}`).join('\n'))
  return result.data
}
