// What each setting of a conversion brings: the embedded base is converted with one setting changed at a time, by several
// seeds, and one JSON line is printed for each run. A run whose report is there is not done again.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { print, reportRun } from '../../bench/measure.ts'
import type { ReportData } from '../../src/eval/report/types.ts'

const usage = `usage: npx tsx scripts/tiny/ablations.ts [--data runs/tiny/data] [--output-dir runs/ablations] [--seeds 1,2,3]
         [--total-tokens 400k] [--task-rows 100] [--threads N] [--only NAME,...]
Make the data first: npx tsx scripts/tiny/corpus.ts
`

/** The recipe that is changed, and the flags that change it; with `text`, rows are plain text and no part of them is a prompt. */
interface Ablation {
  recipe: 'tiny-convert' | 'tiny-hybrid'
  name: string
  flags: string[]
  text?: boolean
}

const blocks = (name: string, ...flags: string[]): Ablation => ({ recipe: 'tiny-convert', name, flags })
const hybrid = (name: string, ...flags: string[]): Ablation => ({ recipe: 'tiny-hybrid', name, flags })

/** The first of a recipe is the recipe as it is. */
const ablations: readonly Ablation[] = [
  blocks('blocks'),
  blocks('schedule: wsd', '--schedule', 'wsd'),
  blocks('no token shift', '--same-token-labels'),
  blocks('mask ratios 0.3 to 0.8', '--noise-range-low', '0.3', '--noise-range-high', '0.8'),
  blocks('copies not complementary', '--no-complementary-masking'),
  blocks('one copy', '--no-complementary-masking', '--copies', '1'),
  { ...blocks('prompts masked too'), text: true },
  blocks('later tokens masked longer', '--position-dependent', '0.25'),
  blocks('noise on embeddings of masks', '--embedding-noise-sigma', '0.1', '--embedding-noise-steps', '100'),
  hybrid('hybrid'),
  hybrid('diffusion loss weighted 0.1', '--diffusion-loss-weight', '0.1'),
  hybrid('diffusion loss weighted 1', '--diffusion-loss-weight', '1'),
]

const { values } = parseArgs({
  options: {
    data: { type: 'string', default: join('runs', 'tiny', 'data') },
    'output-dir': { type: 'string', default: join('runs', 'ablations') },
    seeds: { type: 'string', default: '1,2,3' },
    'total-tokens': { type: 'string', default: '400k' },
    'task-rows': { type: 'string', default: '100' },
    threads: { type: 'string', default: '0' },
    only: { type: 'string' },
  },
})
const only = values.only?.split(',')
const unknown = only?.filter((name) => !ablations.some((ablation) => ablation.name === name)) ?? []
if (unknown.length > 0) {
  const names = ablations.map(({ name }) => `  ${name}`).join('\n')
  process.stderr.write(`${usage}no ablation is named ${unknown.join(', ')}; there are:\n${names}\n`)
  process.exit(2)
}

mkdirSync(values['output-dir'], { recursive: true })
const train = join(values.data, 'convert.jsonl')
const plain = join(values['output-dir'], 'text.jsonl')
writeFileSync(plain, asText(readFileSync(train, 'utf8')))
reportRun(
  ['npx tsx scripts/tiny/ablations.ts', ...process.argv.slice(2)].join(' '),
  Number(values.threads) || undefined,
)
// Seeds go round outside, so that an interrupted command leaves whole seeds.
for (const seed of values.seeds.split(','))
  for (const ablation of ablations) if (only?.includes(ablation.name) ?? true) measure(ablation, seed)

/** Rows with prompt and completion as one text. */
function asText(rows: string): string {
  const texts = rows
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { text?: string; prompt?: string; completion?: string })
    .map(({ text, prompt, completion }) => ({ text: text ?? `${prompt}${completion}` }))
  return texts.map((row) => `${JSON.stringify(row)}\n`).join('')
}

function measure({ recipe, name, flags, text }: Ablation, seed: string): void {
  const directory = join(values['output-dir'], `${name.replaceAll(/[^a-z0-9.]+/gi, '-')}-${seed}`)
  const report =
    readReport(directory) ?? convert(recipe, directory, [...flags, '--train-path', text ? plain : train], seed)
  const { own, sweep, diffusion } = report
  // Every draft of a hybrid model is checked at threshold 1; blocks are decoded by their default.
  const decoded = own ? sweep.find(({ threshold }) => threshold === 1) : diffusion
  print({
    recipe,
    ablation: name,
    seed: Number(seed),
    base_score: report.ar!.score!.accuracy,
    score: decoded!.score!.accuracy,
    tokens_per_forward: decoded!.tokensPerForward,
    bits_per_byte: diffusion!.bitsPerByte,
    bits_per_byte_stderr: diffusion!.bitsPerByteStderr,
    seconds: report.training!.seconds,
  })
}

function readReport(directory: string): ReportData | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, 'report', 'report.json'), 'utf8')) as ReportData
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function convert(recipe: string, directory: string, flags: readonly string[], seed: string): ReportData {
  const command = [
    ...[
      'bin/unmask.js',
      'convert',
      '--recipe',
      join('recipes', `${recipe}.yaml`),
      '--output-dir',
      directory,
      '--force',
    ],
    ...['--validation-path', join(values.data, 'validation.jsonl'), '--total-tokens', values['total-tokens']],
    ...['--task-rows', values['task-rows'], '--seed', seed, '--eval-steps', '0', '--save-steps', '0'],
    ...['--thresholds', '0.95', '--threads', values.threads, '--quiet', ...flags],
  ]
  const { status } = spawnSync(process.execPath, command, { stdio: ['ignore', 'ignore', 'inherit'] })
  const report = readReport(directory)
  if (status !== 0 || !report) throw new Error(`unmask ${command.slice(1).join(' ')} ended with ${status}`)
  return report
}
