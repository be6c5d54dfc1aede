// What `eval suite` measures, as a recipe. Reads no files.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { decodingModes } from '../decode/settings.ts'
import { recipeDecodingFields } from '../decode/settings-zod.ts'
import { check } from '../formats/check.ts'
import { taskNames } from '../tasks/open.ts'
import { noiseKinds } from '../tasks/text-noise.ts'
import { data, type Origin, problemLines, share, tokenCount, whole, wholeOrZero } from './recipe.ts'

export const suiteSchema = z.strictObject({
  model: z.string().min(1).describe('model to measure: folder, file, Hub repository or pypi:PACKAGE'),
  base: z
    .string()
    .min(1)
    .optional()
    .describe('model that it came from, measured one token at a time on the same rows in turn'),
  output_dir: z.string().min(1).describe('folder that receives model.json, base.json and report.html'),
  threads: wholeOrZero.default(0).describe('threads of the executor; 0 for one per core'),
  mode: z.enum(decodingModes).optional().describe("how the model writes (default: the model's own way)"),
  block_size: whole.optional().describe("tokens decoded together (default: the model's)"),
  template: data.shape.template,
  tasks: z
    .array(z.string().min(1))
    .default([])
    .describe(`tasks, NAME=FILE?key=value or one of ${taskNames.join(', ')}; see docs/evaluation.md`),
  task_rows: wholeOrZero.default(100).describe('rows of each task, the first ones; 0 for all'),
  samples: whole.max(1024).default(1).describe('answers to each row; more than one want a temperature'),
  noise: z
    .array(z.enum(noiseKinds))
    .default([])
    .describe(`also answer with noise in the prompts: ${noiseKinds.join(', ')}`),
  thresholds: z.array(share).default([]).describe('also answer at these thresholds, for AUP'),
  texts: z
    .array(z.string().regex(/^[A-Za-z0-9][\w -]*=.+$/, 'must be NAME=PATH'))
    .default([])
    .describe('held-out text by domain, NAME=PATH, whose likelihood is measured'),
  text_tokens: tokenCount.default(16_384).describe('most tokens of each domain'),
  draws: whole.default(4).describe('noise draws for each block of a text, taken in pairs'),
  seed: wholeOrZero.default(0).describe('seed of sampling, noise and seeded rows'),
  decode: z
    .strictObject({
      ...recipeDecodingFields,
      max_new_tokens: whole.optional().describe('most tokens of an answer (default: that of the task)'),
    })
    .prefault({}),
})

export type SuiteRecipe = z.output<typeof suiteSchema>
export type SuiteRecipeInput = z.input<typeof suiteSchema>

/** Checks a recipe and fills in its defaults. Errors as in `parseRecipe`. */
export function parseSuiteRecipe(value: unknown, origin: Origin = (path) => path): SuiteRecipe {
  const result = check(suiteSchema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin, suiteSchema).join('\n'))
  const { tasks, texts, samples, decode } = result.data
  const problems: string[] = []
  if (tasks.length === 0 && texts.length === 0)
    problems.push(`${origin('tasks')}: nothing to measure: name tasks or texts`)
  if (samples > 1 && !decode.temperature)
    problems.push(
      `${origin('samples')}: ${samples} answers without a temperature are all the same; set decode.temperature`,
    )
  if (problems.length > 0) throw new UserError(problems.join('\n'))
  return result.data
}
