// GSM8K (Cobbe et al. 2021): word problems whose answers end in a number. Prompts, stops and filters are those of the task
// gsm8k_cot of lm-evaluation-harness 0.4.13; the data are the reader's own file, and so are the examples of few-shot prompts.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { parseRows, type Source } from './rows.ts'
import { defineTask, type Task } from './task.ts'

const row = z.object({
  question: z.string().min(1),
  answer: z.string().regex(/####\s*\S/, 'must end with "#### " and the number'),
})
/** An example has the published answer, or one as it is to stand in the prompt. */
const example = z.union([row, z.object({ question: z.string().min(1), target: z.string().min(1) })])

type Row = z.output<typeof row> & { id: string }

const STRICT = /The answer is (-?[0-9.,]+)[^\n]/
const FLEXIBLE = /-?[$0-9.,]{2,}|-?[0-9]+/g

export const metrics = ['flexible-extract', 'strict-match'] as const

/** `flexible-extract`: the last number of a text. `strict-match`: the one behind "The answer is". Undefined where there is none. */
export const extract = {
  'flexible-extract': (text: string): string | undefined => text.match(FLEXIBLE)?.at(-1),
  'strict-match': (text: string): string | undefined => STRICT.exec(text)?.[1],
}

/** A number as both sides are compared: without commas, dollar signs, a full stop at the end, and what stands before "#### ". */
export const normalise = (text: string): string =>
  text
    .replaceAll(',', '')
    .replaceAll('$', '')
    .replace(/[\s\S]*#### /, '')
    .replace(/\.(?=\n?$)/, '')
    .toLowerCase()

const numberOf = (answer: string): string => (answer.split('####').at(-1) as string).trim()

/** An answer of the data set as reasoning that ends as the strict filter wants it. */
const reasoning = (answer: string): string =>
  `${answer
    .replace(/<<[^>]*>>/g, '')
    .replace(/\n?####[\s\S]*$/, '')
    .replaceAll('\n', ' ')
    .trim()} The answer is ${numberOf(answer)}.`

const problem = (question: string): string => `Q: ${question}\nA:`

/** Throws UserError for a wrong row, or where there are fewer examples than shots. */
export function gsm8k(
  source: Source,
  { shots, examples }: { shots: number; examples?: Source | undefined },
): Task<Row> {
  const rows = parseRows(source, row).map((each, i) => ({ ...each, id: String(i) }))
  const given = shots === 0 || !examples ? [] : parseRows(examples, example).slice(0, shots)
  if (given.length < shots)
    throw new UserError(
      examples
        ? `${examples.path}: has ${given.length} examples; ${shots} shots were asked for`
        : `${shots} shots of gsm8k need a file of examples: add ?shots=${shots}&examples=FILE (rows with "question" and "answer" or "target")`,
    )
  const before = given.map(
    (each) => `${problem(each.question)} ${'target' in each ? each.target : reasoning(each.answer)}\n\n`,
  )
  return defineTask<Row>({
    name: 'gsm8k',
    rows,
    settings: { prompt: 'gsm8k_cot (lm-evaluation-harness 0.4.13)', shots },
    metrics,
    maxNewTokens: 256,
    stop: ['Q:', '</s>', '<|im_end|>'],
    id: ({ id }) => id,
    prompt: ({ question }, alter = (text) => text) => before.join('') + problem(alter(question)),
    alterable: true,
    reference: ({ answer }) => numberOf(answer),
    async score({ answer }, text) {
      const right = normalise(numberOf(answer))
      const scores = metrics.map((name) => [name, Number(normalise(extract[name](text) ?? '[invalid]') === right)])
      return { scores: Object.fromEntries(scores), extracted: extract['flexible-extract'](text) }
    },
  })
}
