// bench tune: every way of decoding a converted model beside its base, over one or several draws of prompts.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import type { StrategyName } from '../src/decode/index.ts'
import type { DecodingSummary } from '../src/eval/report/types.ts'
import { parseRecipe } from '../src/jobs/recipe.ts'
import { tune } from '../src/jobs/tune.ts'
import { print, rounded } from './measure.ts'

export const usage = `usage: npm run bench -- tune --model MODEL --base MODEL [flags]

\`unmask tune\` on the seeded tasks as JSON lines: milliseconds of a forward, the base, one line per way of decoding, AUP.

  --seeds LIST         draws of prompts, each measured by itself (default 0)
  --task-rows N        prompts of each of the four tasks (default 100)
  --strategies LIST    (default: threshold,fixed,hierarchy,credit,factor,entropy_bound)
  --block-sizes LIST   (default: 8,16,32)
  --buffer-sizes LIST  (default: 1,2,3)
  --threads N          threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      base: { type: 'string' },
      seeds: { type: 'string', default: '0' },
      'task-rows': { type: 'string', default: '100' },
      strategies: { type: 'string', default: 'threshold,fixed,hierarchy,credit,factor,entropy_bound' },
      'block-sizes': { type: 'string', default: '8,16,32' },
      'buffer-sizes': { type: 'string', default: '1,2,3' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const { model, base } = values
  if (!model || !base) throw new UserError('bench tune: name a converted model (--model) and its base (--base)')
  const { eval: settings, decode } = parseRecipe({
    model,
    output_dir: '.',
    data: { train_path: ['unused'] },
    eval: { tasks: ['add', 'sort', 'reverse', 'count'], task_rows: Number(values['task-rows']) },
  })
  for (const seed of values.seeds.split(',').map(Number)) {
    const result = await tune({
      model,
      base,
      eval: settings,
      maxNewTokens: decode.max_new_tokens,
      strategies: values.strategies.split(',') as StrategyName[],
      blockSizes: values['block-sizes'].split(',').map(Number),
      bufferSizes: values['buffer-sizes'].split(',').map(Number),
      seed,
      threads: Number(values.threads),
    })
    print({
      seed,
      forwards: result.forwards.map((forward) => ({ ...forward, milliseconds: rounded(forward.milliseconds) })),
    })
    print({ seed, base: figures(result.base!) })
    for (const { settings: way, speedup, ...summary } of result.rows)
      print({ seed, ...way, ...figures(summary), of_ar: rounded(speedup!) })
    for (const { aup, ...family } of result.aup) print({ seed, ...family, aup: rounded(aup) })
  }
}

const figures = ({ score, tokensPerForward, tokensPerSecond }: DecodingSummary) => ({
  score: score && rounded(score.accuracy),
  tokens_per_forward: rounded(tokensPerForward),
  tokens_per_second: rounded(tokensPerSecond),
})
