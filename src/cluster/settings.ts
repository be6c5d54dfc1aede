// How training is started on several machines: one YAML file for all of them. It reads no files.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { check } from '../formats/check.ts'

const text = z.string().regex(/^[^\n\r"'`$\\]+$/, 'expected a line without quotes, backslashes and dollar signs')

export const clusterSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$/, 'expected lower-case letters, digits and dashes')
    .describe('name of the job'),
  command: z.enum(['convert', 'sft']).default('convert').describe('what to run'),
  recipe: text.describe('recipe of the run, relative to folder'),
  machines: z.int().min(1).max(4096).describe('machines that take part'),
  gpus: z.int().min(1).max(64).describe('GPUs, so processes, of each machine'),
  gpu: z
    .string()
    .regex(/^[A-Za-z0-9-]+$/)
    .default('H100')
    .describe('kind of GPU, where the scheduler asks for it'),
  folder: text
    .regex(/^\//, 'expected an absolute path: every machine goes there')
    .describe(
      'folder that all machines share, an absolute path: this file, recipe, data, output and temporary files lie below it',
    ),
  setup: z.array(z.string().min(1)).default([]).describe('shell lines that each machine runs first'),
  port: z.int().min(1024).max(65_535).default(29_500).describe('port of the first machine at which the others meet'),
  hours: z.number().positive().max(1000).default(24).describe('time limit, where the scheduler wants one'),
  image: text.optional().describe('container image with Node, unmask and PyTorch; needed by trainjob and pytorchjob'),
  claim: text
    .optional()
    .describe('persistent volume claim that is mounted at folder; needed by trainjob and pytorchjob'),
  namespace: text.default('default').describe('namespace of Kubernetes'),
  partition: text.optional().describe('partition of Slurm'),
})

export type ClusterSettings = z.output<typeof clusterSchema>

/** Throws UserError with a line for each problem, after `path`. */
export function parseCluster(value: unknown, path: string): ClusterSettings {
  const result = check(clusterSchema, value)
  if ('data' in result) return result.data
  throw new UserError(result.problems.map(({ path: at, message }) => `${path}: ${at.join('.')}: ${message}`).join('\n'))
}
