// Rows of one's own: a prompt, and how its answer is scored.
import { Ajv2020 } from 'ajv/dist/2020.js'
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { extract } from './gsm8k.ts'
import { compilePattern } from './pattern.ts'
import { checkNames, parseRows, type Source } from './rows.ts'
import type { RunProgram } from './sandbox.ts'
import { defineTask, type Task, type Verdict, verdict } from './task.ts'

const common = { id: z.union([z.string().min(1), z.int()]).optional(), prompt: z.string().min(1) }

/** The keys of which a row has one, and what each asks of the answer. */
const scored = {
  exact: z.string().describe('the answer, but for space around it'),
  number: z.number().describe('the last number of the answer'),
  regex: z.string().min(1).describe('a regular expression (RE2) that matches somewhere in the answer'),
  schema: z
    .record(z.string(), z.unknown())
    .describe('a JSON schema (2020-12) that the answer, or its first fenced block, is valid against'),
  tests: z.string().min(1).describe('Python that runs behind the answer, or its first fenced block, without an error'),
  choices: z
    .array(z.string().min(1))
    .min(2)
    .max(64)
    .describe('texts that may follow; `right` is the number of the right one, from 0'),
}

export const scoreKeys = Object.keys(scored)

const row = z
  .strictObject({
    ...common,
    ...Object.fromEntries(Object.entries(scored).map(([key, schema]) => [key, schema.optional()])),
    right: z.int().min(0).optional(),
  })
  .superRefine((value, context) => {
    const given = value as Record<string, unknown>
    const kinds = scoreKeys.filter((key) => given[key] !== undefined)
    if (kinds.length !== 1)
      context.addIssue({
        code: 'custom',
        message: `needs one of ${scoreKeys.join(', ')}; it has ${kinds.join(' and ') || 'none'}`,
      })
    const choices = given.choices as string[] | undefined
    if ((choices === undefined) !== (value.right === undefined) || (choices && Number(value.right) >= choices.length))
      context.addIssue({ code: 'custom', message: 'right must be the number of a choice, from 0' })
    if (choices && new Set(choices).size < choices.length)
      context.addIssue({ code: 'custom', message: 'two choices are the same' })
  })

interface Row {
  id: string
  prompt: string
  choices: readonly string[] | undefined
  reference: string | undefined
  score: (answer: string) => Verdict | Promise<Verdict>
}

const METRIC = 'right'

/** The first fenced block of an answer, else all of it. */
export const blockOf = (answer: string): string => /```[^\n`]*\n([\s\S]*?)(?:```|$)/.exec(answer)?.[1] ?? answer

const parsed = (text: string): { value: unknown } | undefined => {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return undefined
  }
}

/** Patterns of a schema are matched in linear time, like all others here. */
const engine = Object.assign((pattern: string) => compilePattern(pattern), { code: 'compilePattern' })

/**
 * Rows of JSON: `prompt`, one of `scoreKeys`, and an `id` if wanted. All are scored by likelihood (`choices`) or none. `sandbox`
 * is asked for where a row has tests. Throws UserError that names what is wrong.
 */
export async function ownTask(
  name: string,
  source: Source,
  { stop, sandbox }: { stop: readonly string[]; sandbox: () => Promise<RunProgram> },
): Promise<Task<Row>> {
  const given = parseRows(source, row) as (Record<string, unknown> & { prompt: string })[]
  const run = given.some(({ tests }) => tests !== undefined) ? await sandbox() : undefined
  const ajv = new Ajv2020({ strict: false, validateFormats: false, code: { regExp: engine } })
  const rows = given.map((value, i): Row => {
    try {
      const { prompt, id = i } = value
      const choices = value.choices as string[] | undefined
      return { id: String(id), prompt, choices, ...scoring(value, ajv, run) }
    } catch (error) {
      throw new UserError(`${source.path}: row ${i + 1}: ${error instanceof Error ? error.message : error}`)
    }
  })
  checkNames(
    source.path,
    rows.map(({ id }) => id),
  )
  const chosen = rows.filter(({ choices }) => choices).length
  if (chosen > 0 && chosen < rows.length)
    throw new UserError(`${source.path}: some rows have choices and others not; make two files of them`)
  const kinds = [...new Set(given.map((value) => scoreKeys.find((key) => value[key] !== undefined) as string))]
  return defineTask<Row>({
    name,
    rows,
    settings: { prompt: 'as given', shots: 0, scored: kinds.join(', ') },
    metrics: [METRIC],
    maxNewTokens: 256,
    stop,
    id: ({ id }) => id,
    prompt: ({ prompt }, alter = (text) => text) => alter(prompt),
    alterable: true,
    ...(chosen > 0 ? { choices: ({ choices }: Row) => choices as readonly string[] } : {}),
    reference: ({ reference }) => reference,
    score: async ({ score }, answer) => score(answer),
  })
}

function scoring(
  { exact, number, regex, schema, tests, choices, right }: Record<string, unknown>,
  ajv: Ajv2020,
  run: RunProgram | undefined,
): Pick<Row, 'reference' | 'score'> {
  if (typeof exact === 'string')
    return { reference: exact, score: (answer) => verdict(METRIC, answer.trim() === exact.trim()) }
  if (typeof number === 'number')
    return {
      reference: String(number),
      score(answer) {
        const extracted = extract['flexible-extract'](answer)
        const value = extracted === undefined ? Number.NaN : Number(extracted.replace(/[$,]/g, '').replace(/\.$/, ''))
        return verdict(METRIC, value === number, { extracted })
      },
    }
  if (typeof regex === 'string') {
    const pattern = compilePattern(regex)
    return { reference: regex, score: (answer) => verdict(METRIC, pattern.test(answer)) }
  }
  if (schema !== undefined) {
    const valid = ajv.compile(schema as object)
    return {
      reference: undefined,
      score(answer) {
        const json = parsed(answer) ?? parsed(blockOf(answer))
        if (!json) return verdict(METRIC, false, { detail: 'no JSON' })
        return valid(json.value)
          ? verdict(METRIC, true)
          : verdict(METRIC, false, { detail: ajv.errorsText(valid.errors).slice(0, 500) })
      },
    }
  }
  if (typeof tests === 'string')
    return {
      reference: undefined,
      async score(answer) {
        const { status, detail } = await (run as RunProgram)(`${blockOf(answer)}\n${tests}`)
        return verdict(METRIC, status === 'passed', status === 'passed' ? {} : { detail: `${status}: ${detail}` })
      },
    }
  const texts = choices as string[]
  return { reference: texts[right as number], score: (answer) => verdict(METRIC, answer === String(right)) }
}
