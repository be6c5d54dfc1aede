// Scores of unmask for scripts/check_tasks.py: reads cases as JSON from standard input, prints what each gives.
import { diversity } from '../src/eval/diversity.ts'
import { holm, mcnemar, pairedComparison } from '../src/eval/paired.ts'
import { passAtK } from '../src/eval/pass-at-k.ts'
import { instructionCheck, looseForms } from '../src/tasks/instructions.ts'
import { openTask, parseTask } from '../src/tasks/open.ts'
import { createSandbox, type RunProgram } from '../src/tasks/sandbox.ts'

type Case =
  /** Scores of answers to the rows of a task, and the prompts. */
  | {
      kind: 'task'
      spec: string
      files: Record<string, string>
      template: 'none' | 'chat'
      answers: [number, string][]
    }
  | { kind: 'instruction'; name: string; given: Record<string, unknown>; texts: string[] }
  | { kind: 'pass'; count: number; right: number; k: number }
  | { kind: 'paired'; a: number[]; b: number[]; weights?: number[] }
  | { kind: 'mcnemar'; gained: number; lost: number }
  | { kind: 'holm'; values: number[] }
  | { kind: 'diversity'; texts: string[] }

let text = ''
for await (const part of process.stdin.setEncoding('utf8')) text += part
const results: unknown[] = []
for (const each of JSON.parse(text) as Case[]) results.push(await resultOf(each))
process.stdout.write(JSON.stringify(results))

async function resultOf(each: Case): Promise<unknown> {
  switch (each.kind) {
    case 'task': {
      let sandbox: Promise<RunProgram> | undefined
      const { task } = await openTask(parseTask(each.spec), {
        ...{ template: each.template, seed: 0, seededRows: 1 },
        read: async (path) => each.files[path] as string,
        sandbox: () => {
          sandbox ??= createSandbox({ limits: { seconds: 20 } })
          return sandbox
        },
      })
      const scores: unknown[] = []
      for (const [row, answer] of each.answers) scores.push((await task.score(task.rows[row], answer)).scores)
      return { scores, prompts: task.rows.map((row) => [task.prompt(row), task.answerPrefix?.(row) ?? '']) }
    }
    case 'instruction': {
      const holds = instructionCheck(each.name, each.given)
      return each.texts.map((one) => [holds(one), looseForms(one).some(holds)])
    }
    case 'pass':
      return passAtK(each.count, each.right, each.k)
    case 'paired':
      return pairedComparison(each.a, each.b, each.weights ? { weights: each.weights } : {})
    case 'mcnemar':
      return mcnemar(each.gained, each.lost)
    case 'holm':
      return holm(each.values)
    case 'diversity':
      return diversity(each.texts)
  }
}
