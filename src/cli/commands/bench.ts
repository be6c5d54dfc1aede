// unmask bench: how fast a server answers, over the rate of requests.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import type { LoadResult } from '../../serve/load-test.ts'
import { mandatory, numberList, wholeNumber } from '../flags.ts'
import { decimals, table } from '../format.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  serve: string
  model?: string[]
  rates: string
  seconds: string
  maxTokens: string
  prompt?: string[]
  seed: string
  outputDir?: string
  force?: boolean
}

const PROMPTS = [
  'The state of the union is',
  'We, the people of',
  'Four score and seven years ago',
  'It is the duty of government to',
  'Our friends and allies',
  'In the year that has passed',
  'The budget that I send to you',
  'Let us then, my fellow citizens,',
]

export function benchCommand(session: Session): Command {
  return new Command('bench')
    .description('Measure a running server: latency and throughput over the rate of requests, with a chart.')
    .addOption(
      mandatory(
        new Option(
          '--serve <url>',
          'address of an OpenAI-compatible server; UNMASK_API_KEY is its key, if it wants one',
        ),
      ),
    )
    .option('--model <names...>', 'models to measure (default: all that the server lists)')
    .option('--rates <list>', 'requests per second', '1,2,4,8,16')
    .option('--seconds <number>', 'time in which requests arrive, for each rate', '10')
    .option('--max-tokens <number>', 'most tokens of an answer', '64')
    .option('--prompt <texts...>', 'prompts, taken in turn (default: eight beginnings of speeches)')
    .option('--seed <number>', 'of the arrivals', '0')
    .option('--output-dir <folder>', 'writes serve.json and serve.svg there')
    .option('--force', 'replace these files if they exist')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask bench --serve http://127.0.0.1:8000
  $ unmask bench --serve http://127.0.0.1:8000 --model base mine --rates 1,4,16 --output-dir runs/bench

Requests arrive at random (a Poisson process) and do not wait for answers. Times are to the first text, and per token after it.`,
    )
    .action(
      action(session, async (context, command) => {
        const flags = command.opts<Flags>()
        const { display, signal } = context
        const files = flags.outputDir === undefined ? undefined : await outputFiles(flags.outputDir, flags.force)
        const { sweep } = await import('../../serve/load-test.ts')
        const apiKey = process.env.UNMASK_API_KEY
        const results = await sweep({
          target: { url: flags.serve, signal, apiKey },
          models: flags.model,
          rates: numberList('--rates', flags.rates, { least: 0.01, whole: false })!,
          seconds: wholeNumber('--seconds', flags.seconds)!,
          prompts: flags.prompt ?? PROMPTS,
          maxTokens: wholeNumber('--max-tokens', flags.maxTokens)!,
          seed: wholeNumber('--seed', flags.seed, 0)!,
          onResult: ({ model, rate, completed, requests }) =>
            display.line(`${model} at ${rate} per second: ${completed} of ${requests} answered`),
        })
        if (files) {
          const { loadFigure } = await import('../../serve/load-figure.ts')
          const { provenance } = await import('../../account/provenance.ts')
          const run = provenance(context.commandLine, undefined)
          await writeFile(files.json, `${JSON.stringify({ run, results }, null, 2)}\n`)
          await writeFile(files.svg, loadFigure(results))
        }
        context.result(results, () => describe(results))
      }),
    )
}

/** Makes the folder before anything is measured, and checks that nothing in it would be replaced unasked. */
async function outputFiles(folder: string, force: boolean | undefined): Promise<{ json: string; svg: string }> {
  const { makeFolder } = await import('../../checkpoint/file.ts')
  const { claimOutput } = await import('../../checkpoint/index.ts')
  const files = { json: join(folder, 'serve.json'), svg: join(folder, 'serve.svg') }
  for (const path of Object.values(files)) await claimOutput(path, { inputs: [], force })
  await makeFolder(folder)
  return files
}

function describe(results: readonly LoadResult[]): string {
  const ms = (seconds: number) => decimals(seconds * 1000, 1)
  return table([
    [
      'model',
      'requests/s',
      'answered',
      'first token ms p50/p95/p99',
      'per token ms p50/p95/p99',
      'tokens/s',
      'tokens/forward',
    ],
    ...results.map(({ model, rate, completed, requests, firstToken, perToken, tokensPerSecond, tokensPerForward }) => [
      model,
      String(rate),
      `${completed}/${requests}`,
      [firstToken.p50, firstToken.p95, firstToken.p99].map(ms).join(' / '),
      [perToken.p50, perToken.p95, perToken.p99].map(ms).join(' / '),
      decimals(tokensPerSecond, 1),
      decimals(tokensPerForward, 2),
    ]),
  ])
}
