// HumanEval (Chen et al. 2021): functions in Python, scored by running their tests. Prompts and cuts are those of the tasks
// humaneval and humaneval_instruct of lm-evaluation-harness 0.4.13; the data are the reader's own file.
import * as z from 'zod'
import { checkNames, parseRows, type Source } from './rows.ts'
import type { RunProgram } from './sandbox.ts'
import { defineTask, type Task, verdict } from './task.ts'

const row = z.object({
  task_id: z.string().min(1),
  prompt: z.string().min(1),
  test: z.string().min(1),
  entry_point: z.string().regex(/^[A-Za-z_]\w*$/, 'must be the name of a function'),
})

type Row = z.output<typeof row>

const FENCE = '```'

/** The answer up to the fence that ends its code. */
export const codeOf = (answer: string): string => answer.split(FENCE, 1)[0] as string

/** `template` is that of the model's prompts: with `chat` the task is humaneval_instruct. Throws UserError for a wrong row. */
export function humaneval(
  source: Source,
  { template, run }: { template: 'none' | 'chat'; run: RunProgram },
): Task<Row> {
  const rows = parseRows(source, row)
  checkNames(
    source.path,
    rows.map(({ task_id }) => task_id),
  )
  const chat = template === 'chat'
  return defineTask<Row>({
    name: 'humaneval',
    rows,
    settings: { prompt: `humaneval${chat ? '_instruct' : ''} (lm-evaluation-harness 0.4.13)`, shots: 0 },
    metrics: ['pass@1'],
    maxNewTokens: 512,
    stop: ['\nclass', '\ndef', '\n#', '\nif', '\nprint'],
    id: ({ task_id }) => task_id,
    prompt: ({ prompt }) =>
      chat
        ? `Write a solution to the following problem and make sure that it passes the tests:\n${FENCE}python\n${prompt}\n${FENCE}\n`
        : prompt,
    alterable: false,
    answerPrefix: ({ prompt }) => `Here is the completed function:\n${FENCE}python\n${prompt}\n`,
    reference: () => undefined,
    async score({ prompt, test, entry_point }, answer) {
      const code = prompt + (chat ? codeOf(answer) : answer)
      const { status, detail } = await run(`${code}\n${test}\ncheck(${entry_point})`)
      return verdict('pass@1', status === 'passed', {
        detail: status === 'passed' ? undefined : `${status}: ${detail}`,
      })
    },
  })
}
