// The suite's report as one HTML page: what a person wants to know first, then tables, settings and answers.
import * as Plot from '@observablehq/plot'
import { draw, type Figure } from '../report/figures.ts'
import { escapeHtml, figures, frame, section, tiles } from '../report/page.ts'
import type { Table } from '../report/tables.ts'
import type { Comparison, Comparisons } from './compare.ts'
import type { SuiteRun, TaskRun } from './records.ts'
import { aupOf, type ConditionSummary, curve, type Interval, summarise, summariseDomain } from './summary.ts'

const MISSING = '–'
const fixed = (value: number | undefined, digits: number): string =>
  value === undefined || !Number.isFinite(value) ? MISSING : value.toFixed(digits)
const percent = (value: number | undefined): string => fixed(value === undefined ? value : 100 * value, 1)
const share = ({ value, low, high }: Interval): string => `${percent(value)} (${percent(low)}–${percent(high)})`
const bits = ({ bitsPerByte, stderr }: { bitsPerByte: number; stderr: number }): string =>
  stderr > 0 ? `${fixed(bitsPerByte, 3)} ± ${fixed(stderr, 3)}` : fixed(bitsPerByte, 3)

interface Pages {
  run: SuiteRun
  base: SuiteRun | undefined
  comparisons: Comparisons | undefined
}

/** A task under a condition, of the model and of its base. */
interface Line {
  task: TaskRun
  own: ConditionSummary
  base: ConditionSummary | undefined
}

function linesOf({ run, base }: Pages): Line[] {
  return run.tasks.flatMap((task) => {
    const other = base?.tasks.find(({ name }) => name === task.name)
    return task.conditions.map((condition): Line => {
      const paired = other?.conditions.find(({ name }) => name === condition.name)
      return { task, own: summarise(task, condition), base: other && paired && summarise(other, paired) }
    })
  })
}

const label = ({ task, own }: Line): string => (own.name === 'plain' ? task.name : `${task.name}, ${own.name}`)

export function suitePage(pages: Pages): string {
  const { run, base, comparisons } = pages
  const lines = linesOf(pages)
  const title = base ? `${run.model.source} beside ${base.model.source}` : run.model.source
  const body = `<p>${escapeHtml(summaryOf(pages))}</p>
${tiles(headline(pages, lines))}
${comparisons ? figures([differences(comparisons.comparisons)].filter((figure) => figure !== undefined)) : ''}
${comparisons ? verdicts(comparisons) : ''}
${tablesOf(pages, lines).map(section).join('\n')}
${samples(pages)}
${settings(run, base)}`
  return frame({ title, version: run.versions.unmask, body })
}

function summaryOf({ run, base, comparisons }: Pages): string {
  const way = ({ model }: SuiteRun) =>
    `${model.source} (mode ${model.mode}${model.blockSize > 1 ? `, block ${model.blockSize}` : ''})`
  const verdict = comparisons ? ` ${comparisons.verdict}` : ''
  return base
    ? `First: ${way(base)}. Second: ${way(run)}. Same rows, prompts and settings.${verdict}`
    : `${way(run)}, measured alone.`
}

function headline({ run, base }: Pages, lines: readonly Line[]) {
  const list: { label: string; value: string; remark: string }[] = []
  for (const line of lines.filter(({ own }) => own.name === 'plain')) {
    const [first] = line.own.scores
    const before = line.base?.scores[0]
    list.push({
      label: `${line.task.name}: ${first?.metric}`,
      value: `${percent(first?.score.value)} %`,
      remark: before ? `base ${percent(before.score.value)} %, ${line.own.rows} rows` : `${line.own.rows} rows`,
    })
  }
  for (const domain of run.domains.map(summariseDomain)) {
    const before = base?.domains.find(({ name }) => name === domain.name)
    list.push({
      label: `${domain.name}: bits per byte`,
      value: fixed(domain.bitsPerByte, 3),
      remark: before ? `base ${fixed(summariseDomain(before).bitsPerByte, 3)}` : domain.exact ? 'exact' : 'a bound',
    })
  }
  const fast = lines.find(({ own }) => own.name === 'plain' && own.speed)
  if (fast?.own.speed)
    list.push({
      label: `Speed, ${fast.task.name}`,
      value: `${fixed(fast.own.speed.aggregate, 1)} tokens/s`,
      remark: fast.base?.speed
        ? `base ${fixed(fast.base.speed.aggregate, 1)}`
        : `TPF ${fixed(fast.own.speed.tokensPerForward, 2)}`,
    })
  return list
}

/** Differences of scores with their intervals. */
function differences(comparisons: readonly Comparison[]): Figure | undefined {
  const points = comparisons
    .filter(({ unit }) => unit === 'points')
    .map(({ name, result, verdict }) => ({ name, ...result, verdict }))
  if (points.length === 0) return undefined
  const color = ({ verdict }: { verdict: string }) =>
    verdict === 'worse' ? 'var(--ar)' : verdict === 'better' ? 'var(--diffusion)' : 'var(--line)'
  return {
    id: 'differences',
    title: 'Scores: the second less the first',
    caption: 'Points, with 95 % intervals of a paired bootstrap over the rows. Right of 0 is higher.',
    legend: [
      { color: 'var(--ar)', label: 'worse' },
      { color: 'var(--diffusion)', label: 'better' },
      { color: 'var(--line)', label: 'no difference shown' },
    ],
    svg: draw({
      ariaLabel: 'Differences of scores',
      height: 60 + 30 * points.length,
      marginTop: 6,
      marginLeft: 150,
      x: { label: 'points', grid: true, nice: true },
      y: { label: null, domain: points.map(({ name }) => name), tickSize: 0 },
      marks: [
        Plot.ruleX([0], { stroke: 'currentColor' }),
        Plot.ruleY(points, { y: 'name', x1: 'low', x2: 'high', stroke: color, strokeWidth: 2.2 }),
        Plot.dot(points, { y: 'name', x: 'difference', fill: color, r: 4.5 }),
      ],
    }),
  }
}

function tablesOf({ run, base }: Pages, lines: readonly Line[]): Table[] {
  const pair = (own: string, other: string | undefined) => (base ? [other ?? MISSING, own] : [own])
  const heads = (name: string) => (base ? [`first: ${name}`, `second: ${name}`] : [name])
  const tables: Table[] = []
  if (lines.length > 0)
    tables.push({
      title: 'Scores',
      note: 'Per cent, with 95 % intervals. pass@k is estimated without bias from all answers of a row.',
      head: ['task', 'metric', 'rows', ...heads('score')],
      rows: lines.flatMap((line) => [
        ...line.own.scores.map(({ metric, score }) => [
          ...[label(line), metric, String(line.own.rows)],
          ...pair(share(score), optional(line.base?.scores.find((other) => other.metric === metric)?.score)),
        ]),
        ...line.own.passAtK.map(({ k, value }) => [
          ...[label(line), `pass@${k}`, String(line.own.rows)],
          ...pair(percent(value), percent(line.base?.passAtK.find((other) => other.k === k)?.value)),
        ]),
      ]),
    })
  const written = lines.filter(({ own }) => own.speed)
  if (written.length > 0)
    tables.push({
      title: 'Speed and latency',
      note: 'One request at a time, rows in turn. Aggregate: all tokens over all seconds; mean: of the answers’ own. Seconds of an answer: median and 95th percentile.',
      head: ['task', 'model', 'tokens/s', 'mean', 'TPF', 'tokens', 's', 's (95 %)', 's to first', 'ended itself'],
      rows: written.flatMap((line) =>
        (base
          ? [['first', line.base] as const, ['second', line.own] as const]
          : [['model', line.own] as const]
        ).flatMap(([who, each]) => {
          if (!each?.speed) return []
          const { aggregate, mean, tokensPerForward, tokens, median, p95, first, ended } = each.speed
          return [
            [
              ...[label(line), who, fixed(aggregate, 1), fixed(mean, 1), fixed(tokensPerForward, 2), fixed(tokens, 0)],
              ...[fixed(median, 2), fixed(p95, 2), fixed(first, 3), percent(ended)],
            ],
          ]
        }),
      ),
    })
  const curves = run.tasks.filter((task) => curve(task).length > 1)
  if (curves.length > 0) {
    tables.push({
      title: 'Accuracy under parallelism',
      note: 'AUP of scores over tokens per forward, with the best score of all that were compared as y_max.',
      head: ['task', 'y_max', 'AUP'],
      rows: curves.map((task) => {
        const other = base?.tasks.find(({ name }) => name === task.name)
        const best = Math.max(...[task, ...(other ? [other] : [])].flatMap(curve).map(({ score }) => score))
        return [task.name, percent(best), fixed(aupOf(curve(task), best), 1)]
      }),
    })
  }
  if (run.domains.length > 0)
    tables.push({
      title: 'Likelihood',
      note: 'Bits per byte of held-out text, lower is better; ± is the standard error over the noise draws of a bound. Calibration: how far the probability of the predicted token is from how often it is right (ECE, per cent). What a conversion forgot is the difference on general text.',
      head: ['domain', 'bytes', ...heads('bits per byte'), ...heads('ECE')],
      rows: run.domains.map((each) => {
        const own = summariseDomain(each)
        const other = base?.domains.find(({ name }) => name === each.name)
        const first = other && summariseDomain(other)
        const text = (domain: typeof own) => `${bits(domain)}${domain.exact ? '' : ' (bound)'}`
        return [
          ...[own.name, String(own.bytes), ...pair(text(own), first && text(first))],
          ...pair(percent(own.calibration), percent(first?.calibration)),
        ]
      }),
    })
  const varied = lines.filter(({ own }) => own.diversity || own.calibration !== undefined)
  if (varied.length > 0)
    tables.push({
      title: 'Diversity, and calibration of choices',
      note: 'distinct-n: share of different words, and of pairs of words, in all answers together. Self-BLEU: how alike answers are, lower is more varied. ECE of choices by likelihood, per cent.',
      head: ['task', ...heads('distinct-1'), ...heads('distinct-2'), ...heads('self-BLEU'), ...heads('ECE')],
      rows: varied.map((line) => [
        label(line),
        ...pair(fixed(line.own.diversity?.distinct1, 3), fixed(line.base?.diversity?.distinct1, 3)),
        ...pair(fixed(line.own.diversity?.distinct2, 3), fixed(line.base?.diversity?.distinct2, 3)),
        ...pair(fixed(line.own.diversity?.selfBleu, 3), fixed(line.base?.diversity?.selfBleu, 3)),
        ...pair(percent(line.own.calibration), percent(line.base?.calibration)),
      ]),
    })
  return tables
}

const optional = (score: Interval | undefined): string | undefined => score && share(score)

const verdicts = ({ comparisons, left }: Comparisons): string => `<h2>In words</h2>
<ul>
${comparisons.map(({ sentence }) => `<li>${escapeHtml(sentence)}</li>`).join('\n')}
${left.map((each) => `<li class="soft">not compared: ${escapeHtml(each)}</li>`).join('\n')}
</ul>`

/** The first answers of each task. */
const SAMPLES = 3
const MOST_SHOWN = 600

function samples({ run, base }: Pages): string {
  const cut = (text: string) => (text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)} …` : text)
  const cell = (text: string | undefined) => `<td>${text === undefined ? MISSING : escapeHtml(cut(text))}</td>`
  const rows = run.tasks.flatMap((task) => {
    const condition = task.conditions[0]
    const other = base?.tasks.find(({ name }) => name === task.name)?.conditions[0]
    return (condition?.rows ?? []).slice(0, SAMPLES).map(({ id, prompt, reference, answers }) => {
      const first = other?.rows.find((row) => row.id === id)?.answers[0]?.text
      const answer = answers[0]?.text
      return `<tr>${cell(task.name)}${cell(prompt)}${cell(reference)}${base ? cell(first) : ''}${cell(answer)}</tr>`
    })
  })
  if (rows.length === 0) return ''
  return `<details><summary>Answers to the first rows</summary>
<div class="scroll"><table class="samples">
<thead><tr><th>task</th><th>prompt</th><th>right</th>${base ? '<th>first</th>' : ''}<th>${base ? 'second' : 'answer'}</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table></div></details>`
}

function settings(run: SuiteRun, base: SuiteRun | undefined): string {
  const entries = (values: Readonly<Record<string, unknown>>) =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
      .join('; ')
  const list: [string, string][] = [
    ...(base ? [['First', `${base.model.source}; ${entries(base.settings)}`] as [string, string]] : []),
    [base ? 'Second' : 'Model', `${run.model.source}; ${entries(run.settings)}`],
    ...run.tasks.map((task): [string, string] => [task.name, entries(task.settings)]),
    ['Date', run.created],
    ['Machine', entries(run.machine)],
    ['Versions', entries(run.versions)],
  ]
  return `<h2>Settings</h2>
<dl class="run">
${list.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join('\n')}
</dl>
<p class="soft">Command</p>
<pre>${escapeHtml(run.command)}</pre>`
}
