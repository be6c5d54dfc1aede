// docs/benchmarks.md and the table of README, made from the files under docs/reports.
import type { Provenance } from '../../src/account/provenance.ts'
import type { ReportData } from '../../src/eval/report/types.ts'
import { type Line, readLines, readReport } from './lines.ts'
import { percent, table, times } from './markdown.ts'
import { reports, variables } from './reports.ts'

/** Files that are made from the reports: their name, and from what stands in them now what should. */
export const pages: Readonly<Record<string, (current: string) => string>> = {
  'docs/benchmarks.md': benchmarksPage,
  'README.md': withFigures,
}

function benchmarksPage(): string {
  const sections = reports.map((report) => {
    const result = report.render()
    return [
      `## ${report.title}`,
      report.about,
      ['```sh needs=measurement', `npm run measure -- ${report.name}`, '```'].join('\n'),
      result ? origin(result.runs) : 'Not measured yet.',
      ...(result ? [result.text] : []),
    ].join('\n\n')
  })
  return `${[
    '# Benchmarks',
    '<!-- Made by `npm run docs:benchmarks` from docs/reports; do not edit. -->',
    `Every figure that unmask claims stands here and nowhere else; \`npm run docs:benchmarks\` makes this page from the
lines under [docs/reports](reports). Absolute figures change from machine to machine, and with what else the machine does;
ratios change less, since peers are measured in turn in the same run. Ratios are speed over speed unless a table says otherwise.`,
    `\`npm run measure -- NAME\` makes a report again, and then this page; \`npm run measure -- --list\` prints the commands that
it runs. Environment variables say where things are that are not part of the repository:`,
    table([['variable', ''], ...Object.entries(variables).map(([name, what]) => [`\`${name}\``, what])]),
    ...sections,
  ].join('\n\n')}\n`
}

/** When, with what and where a report was measured. */
function origin(runs: readonly Provenance[]): string {
  if (runs.length === 0) return 'Date, versions and machine: not recorded.'
  const lines = runs.map(({ created, versions, machine, command }) => {
    const { unmask, commit, node, 'onnxruntime-node': runtime } = versions
    const threads = machine.threads === undefined ? '' : `, ${machine.threads} threads`
    return [
      created.slice(0, 10),
      `unmask ${unmask}${commit ? ` (${commit})` : ''}, Node ${node}, ONNX Runtime ${runtime}`,
      `${machine.cpu}, ${machine.cores} cores, ${Math.round(machine.memoryBytes / 2 ** 30)} GiB, ${machine.platform}${threads}`,
      `\`${command}\``,
    ].join('; ')
  })
  return lines.length === 1 ? lines[0] : lines.map((line) => `- ${line}`).join('\n')
}

const BEGIN = '<!-- benchmarks: made by `npm run docs:benchmarks` -->'
const END = '<!-- /benchmarks -->'

/** README with its table of figures made anew. Throws where it has no place for it. */
function withFigures(readme: string): string {
  const [before, rest] = readme.split(BEGIN)
  const after = rest?.split(END)[1]
  if (after === undefined) throw new Error(`README.md: expected ${BEGIN} and ${END}`)
  return `${before}${BEGIN}\n\n${headline()}\n\n${END}${after}`
}

/** At most six rows, those where unmask loses among them. */
function headline(): string {
  const tiny = readReport('quickstart')!
  const train = measured('bench/train-7m.jsonl')
  const decode = measured('bench/decode-peer-smollm2-135m.jsonl')
  const error = (line: Line) => `${percent(line.value)} ± ${(100 * line.error!).toFixed(1)}`
  /** Speed of the hybrid model with every draft checked, and its score, beside those of the autoregressive fine-tune. */
  const job = (file: string, { score, way }: { score: string; way: string }) => {
    const line = (way: string, unit: string) => measured(file)((found) => found.case === way && found.unit === unit)
    const speed = (way: string) => line(way, 'tokens/s').value
    return `${times(speed(way) / speed('AR fine-tune'))} an autoregressive fine-tune on the same tokens, ${times(speed(way) / speed('node-llama-cpp'))} node-llama-cpp; ${error(line(way, score))} (autoregressive fine-tune: ${error(line('AR fine-tune', score))})`
  }
  const [torch] = ['float32', 'bfloat16']
    .map((dtype) => ({ dtype, line: train((line) => line.unit === 'tokens/s' && line.peer!.endsWith(dtype)) }))
    .sort((a, b) => b.line.peer_value! - a.line.peer_value!)
  const llama = decode((line) => line.case === '4 bits, AR')
  return table([
    ['', '', 'measured on'],
    [
      'The embedded model, converted in minutes: right answers; speed',
      `${percent(tiny.diffusion!.score!.accuracy)} (its base: ${percent(tiny.ar!.score!.accuracy)}); ${speedOf(tiny)}`,
      machineOf(tiny),
    ],
    [
      'The same: bits per byte of held-out text. **Worse** than its base',
      `${tiny.diffusion!.bitsPerByte!.toFixed(3)} (its base: ${tiny.ar!.bitsPerByte!.toFixed(3)})`,
      machineOf(tiny),
    ],
    [
      'SmolLM2-135M, trained to repair text, 8 bits, every draft checked: speed; wrong characters left',
      job('bench/jobs-repair.jsonl', { score: 'character error rate', way: 'hybrid, masks and lookup' }),
      machineOfFile('bench/jobs-repair.jsonl'),
    ],
    [
      'SmolLM2-135M, an adapter of 10 MB that extracts records as JSON, 8 bits, every draft checked: speed; right records',
      job('bench/jobs-extract.jsonl', { score: 'exact JSON', way: 'hybrid, masks' }),
      machineOfFile('bench/jobs-extract.jsonl'),
    ],
    [
      'Training step of a model of 7M parameters, beside PyTorch on the same CPU',
      `${times(torch!.line.ratio!)} PyTorch in ${torch!.dtype}, the faster of its types there`,
      machineOfFile('bench/train-7m.jsonl'),
    ],
    [
      'Autoregressive decoding of SmolLM2-135M in 4 bits',
      `${times(llama.ratio!)} ${llama.peer}`,
      machineOfFile('bench/decode-peer-smollm2-135m.jsonl'),
    ],
  ])
}

/** With every draft checked, and at the threshold of the sweep that loses least beside the base. */
function speedOf({ ar, diffusion, sweep }: ReportData): string {
  const over = (point: { tokensPerSecond?: number | undefined }) => times(point.tokensPerSecond! / ar!.tokensPerSecond!)
  const lossy = sweep.filter(({ threshold }) => threshold < 1).sort((a, b) => b.score!.accuracy - a.score!.accuracy)[0]
  const exact = `${over(diffusion!)} its base with every draft checked`
  return lossy
    ? `${exact}, ${over(lossy)} at threshold ${lossy.threshold} (${percent(lossy.score!.accuracy)} right)`
    : exact
}

const machineOf = ({ machine: { cpu, cores } }: Pick<Provenance, 'machine'>): string =>
  `${cpu.replace(/\((R|TM)\)| Processor$/g, '')}, ${cores} cores`
function machineOfFile(file: string): string {
  const [run] = readLines(file)?.runs ?? []
  return run ? machineOf(run) : 'not recorded'
}

const measured = (file: string) => (which: (line: Line) => boolean) => {
  const line = readLines(file)?.lines.find(which)
  if (!line) throw new Error(`docs/reports/${file} lacks a line that README shows`)
  return line
}
