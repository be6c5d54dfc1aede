// The recipe of reinforcement learning: tasks instead of texts, steps instead of tokens. Reads no files.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check } from '../formats/check.ts'
import { policyFields } from '../objectives/settings.ts'
import { TASK_NAMES } from '../tasks/index.ts'
import { accountSections, type Origin, positive, problemLines, train, trainConflicts, whole } from './recipe.ts'

const { total_tokens: _tokens, micro_batch_size: _micro, global_batch_size: _global, ...training } = train.shape

export const rlSchema = z.strictObject({
  model: z.string().min(1).describe('model of block diffusion to train: folder, file or Hub repository'),
  output_dir: z.string().min(1).describe('folder that receives the model, checkpoints and metrics'),
  threads: z.int().min(0).default(0).describe('threads of the executor; 0 for one per core'),
  data: z.strictObject({
    tasks: z
      .array(z.enum(TASK_NAMES))
      .min(1)
      .describe(`tasks whose questions are asked and answers are checked: ${TASK_NAMES.join(', ')}`),
    validation_rows: whole.default(200).describe('held-out questions that each evaluation asks'),
    max_seq_len: whole.default(128).describe('length of a packed row in tokens'),
  }),
  train: z
    .strictObject({
      ...training,
      steps: whole.default(50).describe('times that questions are asked and the model is updated'),
      micro_batch_size: whole.default(8).describe('rows in one forward and backward pass'),
      lr: positive.default(1e-5).describe('highest learning rate'),
    })
    .prefault({}),
  policy: z.strictObject(policyFields).prefault({}),
  ...accountSections,
})

export type RlRecipe = z.output<typeof rlSchema>
export type RlRecipeInput = z.input<typeof rlSchema>

/** Checks a recipe and fills in its defaults. Errors as in `parseRecipe`. */
export function parseRlRecipe(value: unknown, origin: Origin = (path) => path): RlRecipe {
  const result = check(rlSchema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin, rlSchema).join('\n'))
  const { train, policy } = result.data
  const conflicts = trainConflicts({ ...train, global_batch_size: train.micro_batch_size })
  if (policy.threshold !== undefined && policy.strategy !== 'threshold')
    conflicts.push({ path: 'policy.threshold', message: 'has a meaning only with strategy: threshold' })
  if (policy.tokens_per_step !== undefined && policy.strategy !== 'fixed')
    conflicts.push({ path: 'policy.tokens_per_step', message: 'has a meaning only with strategy: fixed' })
  if (conflicts.length > 0)
    throw new UserError(conflicts.map(({ path, message }) => `${origin(path)}: ${message}`).join('\n'))
  return result.data
}
