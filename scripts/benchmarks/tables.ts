// The tables of docs/benchmarks.md: what stands in a report's file, as Markdown.
import type { ModelSummary, ReportData } from '../../src/eval/report/types.ts'
import type { LoadResult } from '../../src/serve/load-test.ts'
import type { MetricsRecord } from '../../src/train/metrics.ts'
import type { Line, Suite } from './lines.ts'
import { change, figure, percent, table, times } from './markdown.ts'

/** Tables of a conversion: report.json of `convert` and `quickstart`. */
export function conversion(report: ReportData): string {
  const { ar, own, equal, diffusion, sweep, training, tokenEfficiency: efficiency } = report
  const speed = (model: ModelSummary) =>
    ar?.tokensPerSecond && model.tokensPerSecond ? times(model.tokensPerSecond / ar.tokensPerSecond) : ''
  const cells = (model: ModelSummary) => [
    model.score ? percent(model.score.accuracy) : '–',
    figure(model.tokensPerForward ?? Number.NaN),
    figure(model.tokensPerSecond ?? Number.NaN),
    speed(model),
  ]
  // The headline way, which is the default unless the recipe says otherwise, is bold.
  const wayOf = (threshold: number) => {
    const checked = own && threshold === 1 ? 'converted, every draft checked' : undefined
    const way = checked ?? `converted, \`${diffusion?.strategy ?? 'threshold'}\` ${threshold}`
    return threshold === diffusion?.threshold ? `**${way}**` : way
  }
  const parts = [
    table([
      ['', 'score', 'TPF', 'TPS', 'speed'],
      ...(ar ? [['autoregressive base', ...cells(ar)]] : []),
      ...(own ? [['converted, one token at a time', ...cells(own)]] : []),
      ...sweep.map((point) => [wayOf(point.threshold), ...cells({ ...point, bitsPerByte: undefined, nll: undefined })]),
    ]),
    table([
      ['', 'bits per byte'],
      ...(ar?.bitsPerByte ? [['autoregressive base', ar.bitsPerByte.toFixed(3)]] : []),
      ...(diffusion?.bitsPerByte
        ? [[own ? 'converted' : 'converted (upper bound)', diffusion.bitsPerByte.toFixed(3)]]
        : []),
    ]),
  ]
  if (equal)
    parts.push(
      `${equal.same} of ${equal.prompts} answers with every draft checked are those of one token at a time, token by token.`,
    )
  if (training)
    parts.push(
      table([
        ['training', ''],
        ['tokens', figure(training.tokens)],
        ['minutes', figure(training.seconds / 60)],
        ['tokens per second', figure(training.tokensPerSecond)],
        ...(training.peakMemoryBytes ? [['peak memory', `${figure(training.peakMemoryBytes / 1e9)} GB`]] : []),
      ]),
    )
  if (efficiency) {
    const reached = (tokens: number | undefined) => (tokens === undefined ? 'not reached' : figure(tokens))
    parts.push(
      table([
        [`tokens to a bound of ${efficiency.target.toFixed(3)} nats per token`, ''],
        ['from the base', reached(efficiency.tokensFromBase)],
        ['from random weights', reached(efficiency.tokensFromRandom)],
      ]),
    )
  }
  return parts.join('\n\n')
}

/** A row for each case, a column for each unit. */
export function byUnit(lines: readonly Line[]): string {
  const units = [...new Set(lines.map(({ unit }) => unit))]
  const cases = [...new Set(lines.map((line) => line.case))]
  const value = (label: string, unit: string) => lines.find((line) => line.case === label && line.unit === unit)?.value
  return table([['', ...units], ...cases.map((label) => [label, ...units.map((unit) => figure(value(label, unit)!))])])
}

/** Ways of answering the rows of a job that nothing was trained for: how fast, not how well. */
export const speeds = (lines: readonly Line[]): string =>
  jobs(lines.filter(({ unit }) => ['tokens/forward', 'tokens/s', 'same tokens'].includes(unit)))

/** Ways of answering the rows of a job. */
export function jobs(lines: readonly Line[]): string {
  const ways = [...new Set(lines.map((line) => line.case))]
  const find = (way: string, unit: string) => lines.find((line) => line.case === way && line.unit === unit)
  const share = (line: Line) => `${percent(line.value)} ± ${(100 * (line.error ?? 0)).toFixed(1)}`
  const scores = [
    ['character error rate', 'character errors'],
    ['exact answers', 'exact answers'],
    ['exact JSON', 'exact JSON'],
    ['field F1', 'field F1'],
  ].filter(([unit]) => find(ways[0]!, unit!))
  return table([
    ['', ...scores.map(([, head]) => head!), 'TPF', 'TPS', 'speed', 'same tokens'],
    ...ways.map((way) => {
      const of = (unit: string) => find(way, unit)!
      const same = of('same tokens')
      const perForward = find(way, 'tokens/forward')
      return [
        way,
        ...scores.map(([unit]) => share(of(unit!))),
        perForward ? figure(perForward.value) : '',
        figure(of('tokens/s').value),
        times(of('tokens/s').ratio!),
        `${same.value} of ${same.peer_value}`,
      ]
    }),
  ])
}

/** Lines of `npm run bench -- streams`: a row for each way, a column for each number of texts. */
export function streams(lines: readonly Line[]): string {
  const parts = lines.map((line) => {
    const [, count, way] = /^(\d+) at a time, (.*)$/.exec(line.case)!
    return { ...line, count: Number(count), way: way! }
  })
  const counts = [...new Set(parts.map(({ count }) => count))]
  const ways = [...new Set(parts.map(({ way }) => way))]
  const cell = (way: string, count: number) => {
    const of = (unit: string) => parts.find((part) => part.way === way && part.count === count && part.unit === unit)
    const [speed, perForward] = [of('tokens/s')!, of('tokens/forward')]
    return `${figure(speed.value)} (${times(speed.ratio!)}${perForward && perForward.value > 1 ? `, TPF ${figure(perForward.value)}` : ''})`
  }
  const same = (way: string) => {
    const all = parts.filter((part) => part.way === way && part.unit === 'same tokens')
    const sum = (of: (part: (typeof all)[number]) => number) => all.reduce((total, part) => total + of(part), 0)
    return `${sum(({ value }) => value)} of ${sum(({ peer_value }) => peer_value!)}`
  }
  return table([
    ['', ...counts.map((count) => `${count} at a time`), 'same tokens as alone'],
    ...ways.map((way) => [way, ...counts.map((count) => cell(way, count)), same(way)]),
  ])
}

/** Two conversions that differ in what a state predicts: its own token, or the next one. */
/** Lines of `scripts/tiny/ablations.ts`. */
export interface Ablated {
  recipe: string
  ablation: string
  seed: number
  base_score: number
  score: number
  tokens_per_forward: number
  bits_per_byte: number
}

/** Each recipe as it is, and what one change makes of it: differences of runs of the same seed, with their standard errors. */
export function ablated(lines: readonly Ablated[]): string {
  const recipes = [...new Set(lines.map(({ recipe }) => recipe))]
  return recipes.map((recipe) => ablatedRecipe(lines.filter((line) => line.recipe === recipe))).join('\n\n')
}

function ablatedRecipe(lines: readonly Ablated[]): string {
  const [name, ...changes] = [...new Set(lines.map(({ ablation }) => ablation))]
  const of = (ablation: string) => lines.filter((line) => line.ablation === ablation)
  const unchanged = of(name)
  const paired = (ablation: string, value: (line: Ablated) => number) =>
    of(ablation).flatMap((line) => {
      const same = unchanged.find(({ seed }) => seed === line.seed)
      return same ? [value(line) - value(same)] : []
    })
  const cells = (values: (value: (line: Ablated) => number) => number[]) => [
    withError(
      values(({ score }) => 100 * score),
      1,
    ),
    withError(
      values(({ tokens_per_forward }) => tokens_per_forward),
      2,
    ),
    withError(
      values(({ bits_per_byte }) => bits_per_byte),
      3,
    ),
  ]
  return table([
    [`recipe \`${lines[0].recipe}\``, 'seeds', 'score, %', 'TPF', 'bits per byte'],
    ['as it is', String(unchanged.length), ...cells((value) => unchanged.map(value))],
    ...changes.map((change) => [
      change,
      String(paired(change, () => 0).length),
      ...cells((value) => paired(change, value)).map((cell) => (/^[\d]/.test(cell) ? `+${cell}` : cell)),
    ]),
  ])
}

/** The mean, and its standard error where there are several values. */
function withError(values: readonly number[], digits: number): string {
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  if (values.length < 2) return mean.toFixed(digits)
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)
  return `${mean.toFixed(digits)} ± ${Math.sqrt(variance / values.length).toFixed(digits)}`
}

/** Lines of `npm run bench -- tune`. */
export interface Way {
  seed?: number
  base?: { score: number; tokens_per_forward: number; tokens_per_second: number }
  strategy?: string
  blockSize: number
  bufferSize: number
  threshold?: number
  factor?: number
  entropyBound?: number
  tokensPerStep?: number
  reuse?: boolean
  selfVerify?: number
  score?: number
  tokens_per_forward?: number
  tokens_per_second?: number
  of_ar?: number
  aup?: number
}

const DEFAULT = { strategy: 'hierarchy', threshold: 0.95, blockSize: 16, bufferSize: 2 }

const isDefault = (way: Way): boolean =>
  Object.entries(DEFAULT).every(([name, value]) => way[name as keyof Way] === value)

export function decoding(lines: readonly Way[]): string {
  const base = lines.find((line) => line.base)?.base
  const ways = lines.filter((line) => line.score !== undefined)
  const faster = (a: Way, b: Way) => a.tokens_per_second! > b.tokens_per_second! && a.score! >= b.score!
  const front = ways.filter((way) => !ways.some((other) => faster(other, way) || betterAtSpeed(other, way)))
  const shown = [...new Set([...front, ...ways.filter(isDefault)])].sort((a, b) => b.score! - a.score!)
  const bold = (way: Way, text: string) => (isDefault(way) ? `**${text} (default)**` : text)
  const plain = ways.filter((way) => way.strategy === 'threshold' && way.blockSize === 16 && !way.reuse)
  const of = (threshold: number, bufferSize: number) =>
    plain.find((way) => way.threshold === threshold && way.bufferSize === bufferSize)
  const cell = (way: Way | undefined) => (way ? [percent(way.score!), figure(way.tokens_per_forward!)] : ['', ''])
  const thresholds = [...new Set(plain.map((way) => way.threshold!))].sort((a, b) => b - a)
  const aup = lines.filter((line) => line.aup !== undefined && line.blockSize === 16)
  const strategies = [...new Set(aup.map(({ strategy }) => strategy!))]
  return [
    table([
      ['', 'score', 'TPF', 'speed'],
      ...(base ? [['autoregressive base', percent(base.score), '1', times(1)]] : []),
      ...shown.map((way) => [
        bold(way, wayName(way)),
        percent(way.score!),
        figure(way.tokens_per_forward!),
        times(way.of_ar!),
      ]),
    ]),
    table([
      ['`threshold`, block 16', 'one block: score', 'TPF', 'two blocks: score', 'TPF'],
      ...thresholds.map((value) => [String(value), ...cell(of(value, 1)), ...cell(of(value, 2))]),
    ]),
    table([
      ['AUP, block 16', ...strategies.map((name) => `\`${name}\``)],
      ...[1, 2].map((buffer) => [
        `buffer ${buffer}`,
        ...strategies.map((name) => {
          const found = aup.find((line) => line.strategy === name && line.bufferSize === buffer)
          return found ? figure(found.aup!) : ''
        }),
      ]),
    ]),
    `All ${ways.length} ways: [lines](reports/decoding/tiny.jsonl).`,
  ].join('\n\n')
}

const betterAtSpeed = (a: Way, b: Way): boolean => a.tokens_per_second! >= b.tokens_per_second! && a.score! > b.score!

function wayName({ strategy, threshold, factor, entropyBound, tokensPerStep, blockSize, bufferSize }: Way): string {
  return `\`${strategy}\` ${threshold ?? factor ?? entropyBound ?? tokensPerStep}, block ${blockSize}, buffer ${bufferSize}`
}

export function seeds(lines: readonly Way[]): string {
  const bases = lines.filter((line) => line.base)
  const of = (seed: number | undefined) => lines.find((way) => way.seed === seed && isDefault(way) && way.score)
  const rows = bases.map(({ seed, base }) => ({ seed, base: base!, way: of(seed)! }))
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length
  const points = (share: number) => `${(100 * share).toFixed(1)} points`
  return table([
    ['seed', 'base', 'converted, default', 'difference', 'TPF', 'speed'],
    ...rows.map(({ seed, base, way }) => [
      String(seed),
      percent(base.score),
      percent(way.score!),
      points(way.score! - base.score),
      figure(way.tokens_per_forward!),
      times(way.of_ar!),
    ]),
    [
      'mean',
      percent(mean(rows.map(({ base }) => base.score))),
      percent(mean(rows.map(({ way }) => way.score!))),
      points(mean(rows.map(({ way, base }) => way.score! - base.score))),
      figure(mean(rows.map(({ way }) => way.tokens_per_forward!))),
      times(mean(rows.map(({ way }) => way.of_ar!))),
    ],
  ])
}

/** Any measurements, one a row. */
export function measurements(lines: readonly Line[]): string {
  return table([
    ['', 'unmask', '', 'beside', '', 'ratio'],
    ...lines.map(({ case: label, value, unit, peer, peer_value, ratio }) => [
      label,
      figure(value),
      unit,
      peer ?? '',
      peer_value === null ? '' : figure(peer_value),
      ratio === null ? '' : times(ratio),
    ]),
  ])
}

export function forwards(lines: readonly Line[]): string {
  const parsed = lines.map(({ case: label, value }) => {
    const [, block, cache] = /^block (\d+), cache (\d+)$/.exec(label)!
    return { block, cache, value }
  })
  const caches = [...new Set(parsed.map(({ cache }) => cache))]
  return table([
    ['block size', ...caches.map((cache) => `cache ${cache}`)],
    ...[...new Set(parsed.map(({ block }) => block))].map((block) => [
      block,
      ...caches.map((cache) => {
        const found = parsed.find((line) => line.block === block && line.cache === cache)
        return found ? figure(found.value) : ''
      }),
    ]),
  ])
}

export function besidePeer(lines: readonly Line[]): string {
  const split = (label: string) => [label.slice(0, label.lastIndexOf(', ')), label.slice(label.lastIndexOf(', ') + 2)]
  const kinds = [...new Set(lines.map((line) => split(line.case)[0]))]
  const cases = [...new Set(lines.map((line) => split(line.case)[1]))]
  const cell = (kind: string, name: string) => {
    const line = lines.find((line) => line.case === `${kind}, ${name}`)
    if (!line) return ''
    // Time of a forward is the inverse of speed.
    const ratio = line.unit === 'ms/forward' ? 1 / line.ratio! : line.ratio!
    return `${figure(line.value)} ${line.unit}, ${times(ratio)}`
  }
  const peers = (name: string) => {
    const line = lines.find((line) => line.case.endsWith(`, ${name}`))
    return line ? `${figure(line.peer_value!)} ${line.unit}` : ''
  }
  return table([
    ['', ...kinds, lines[0].peer ?? ''],
    ...cases.map((name) => [name, ...kinds.map((kind) => cell(kind, name)), peers(name)]),
  ])
}

export function accelerated(lines: readonly Line[]): string {
  const labels = [...new Set(lines.map((line) => line.case))]
  return table([
    ['', 'alone, tokens/s', 'with the adapter', 'speed', 'TPF', 'time of a forward', 'same answers'],
    ...labels.map((label) => {
      const of = (unit: string) => lines.find((line) => line.case === label && line.unit.startsWith(unit))
      const [speed, tpf, time, equal] = ['tokens/s', 'tokens/forward', 'ms/forward', 'equal answers'].map(of)
      return [
        label,
        figure(speed!.peer_value!),
        figure(speed!.value),
        times(speed!.ratio!),
        figure(tpf!.value),
        times(time!.ratio!),
        `${equal!.value} ${equal!.unit.replace('equal answers ', '')}`,
      ]
    }),
  ])
}

export function quantised(lines: readonly Line[]): string {
  const labels = [...new Set(lines.map((line) => line.case))]
  const shares = [...new Set(lines.map((line) => line.unit).filter((unit) => unit !== 'nats/token'))]
  return table([
    ['', 'nats/token', 'float32', 'change', ...shares.flatMap((unit) => [`right ${unit}`, 'float32'])],
    ...labels.map((label) => {
      const of = (unit: string) => lines.find((line) => line.case === label && line.unit === unit)
      const nats = of('nats/token')
      return [
        label,
        nats ? nats.value.toFixed(3) : '',
        nats ? nats.peer_value!.toFixed(3) : '',
        nats ? change(nats.value / nats.peer_value!) : '',
        ...shares.flatMap((unit) => {
          const line = of(unit)
          if (!line) return ['', '']
          const error = line.error === undefined ? '' : ` (± ${(100 * line.error).toFixed(1)})`
          return [`${percent(line.value)}${error}`, percent(line.peer_value!)]
        }),
      ]
    }),
  ])
}

export function constrained(lines: readonly Line[]): string {
  const strategies = [
    ...new Set(lines.filter((line) => line.case.includes(', speed')).map((line) => line.case.split(',')[0])),
  ]
  const of = (strategy: string, what: string) => lines.find((line) => line.case.startsWith(`${strategy}, ${what}`))
  const compile = lines.find((line) => line.case === 'compile, median')
  return [
    table([
      ['strategy', 'valid', 'tokens/s', 'of unconstrained', 'TPF', 'unconstrained', 'constraint, ms/step'],
      ...strategies.map((name) => {
        const [valid, speed, tpf, time] = ['valid', 'speed', 'tokens per forward', 'constraint'].map(
          (what) => of(name, what)!,
        )
        return [
          `\`${name}\``,
          `${valid.value} of ${valid.case.split(' ').at(-1)}`,
          figure(speed.value),
          times(speed.ratio!),
          figure(tpf.value),
          figure(tpf.peer_value!),
          figure(time.value),
        ]
      }),
    ]),
    ...(compile ? [`A schema compiles in ${figure(compile.value)} ms (median).`] : []),
  ].join('\n\n')
}

/** Variances of gradients beside that of the first way, with the positions that they cost. */
export function scattered(lines: readonly Line[]): string {
  const of = (unit: string) => lines.filter((line) => line.unit === unit)
  const positions = of('positions of a step')
  return table([
    ['an answer is measured with', 'variance', 'beside one draw', 'positions beside one draw'],
    ...of('variance of the gradient').map(({ case: way, value, error, ratio }) => [
      way,
      `${figure(value)} ± ${figure(error!)}`,
      times(ratio!),
      times(positions.find((line) => line.case === way)!.ratio!),
    ]),
  ])
}

/** Held-out pairs over the steps of preference training. */
export function preferred(records: readonly MetricsRecord[]): string {
  const of = (record: MetricsRecord, name: string) => Number(record[`validation_${name}`])
  const validated = records.filter((record) => record.validation_loss !== undefined)
  const pairs = of(validated[0]!, 'pairs')
  const error = (accuracy: number) =>
    `${percent(accuracy)} ± ${(100 * Math.sqrt((accuracy * (1 - accuracy)) / pairs)).toFixed(1)}`
  return [
    table([
      ['step', 'held-out loss', 'reward margin', 'the chosen answer has the higher reward', 'is the more likely one'],
      ...validated.map((record) => [
        String(record.step),
        of(record, 'loss').toFixed(3),
        of(record, 'reward_margin').toFixed(3),
        error(of(record, 'reward_accuracy')),
        error(of(record, 'likelihood_accuracy')),
      ]),
    ]),
    `${pairs} held-out pairs. At step 0 all rewards are 0, and a tie counts half.`,
  ].join('\n\n')
}

export function served(lines: readonly LoadResult[]): string {
  const ms = ({ p50, p95, p99 }: { p50: number; p95: number; p99: number }) =>
    [p50, p95, p99].map((seconds) => (seconds * 1000).toFixed(1)).join(' / ')
  return [
    table([
      ['model', 'requests/s', 'answered', 'first token, ms', 'per token, ms', 'tokens/s', 'TPF'],
      ...lines.map((line) => [
        line.model,
        String(line.rate),
        `${line.completed} of ${line.requests}`,
        ms(line.firstToken),
        ms(line.perToken),
        figure(line.tokensPerSecond),
        line.tokensPerForward === undefined ? '' : figure(line.tokensPerForward),
      ]),
    ]),
    '![time to first token and tokens per second over the rate of requests](reports/serve/serve.svg)',
  ].join('\n\n')
}

export interface Soak {
  clients: number
  seconds: number
  requests: number
  failed: number
  differing: number
  tokens: number
  first_token_ms: { p50: number; p95: number; p99: number }
  per_token_ms: { p50: number; p95: number; p99: number }
}

export const soaked = (lines: readonly Soak[]): string =>
  table([
    ['clients', 'seconds', 'requests', 'tokens', 'failed', 'other than alone', 'first token, ms', 'per token, ms'],
    ...lines.map((line) => [
      ...[line.clients, line.seconds, line.requests, line.tokens, line.failed, line.differing].map(figure),
      ...[line.first_token_ms, line.per_token_ms].map(({ p50, p95, p99 }) => [p50, p95, p99].map(figure).join(' / ')),
    ]),
  ])

/** A model beside its base: what differs, and how fast each writes. */
export function suited([suite]: readonly Suite[]): string {
  if (!suite) return ''
  const signed = (value: number, digits: number) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`
  const differences = suite.comparisons.comparisons.map(({ name, metric, unit, result, corrected, verdict }) => {
    const digits = unit === 'points' ? 1 : 3
    const { a, b, difference, low, high, rows } = result
    return [
      ...[
        name,
        `${metric}${unit === 'points' ? ' (%)' : ', bits per byte'}`,
        figure(rows),
        a.toFixed(digits),
        b.toFixed(digits),
      ],
      `${signed(difference, digits)} (${signed(low, digits)} to ${signed(high, digits)})`,
      ...[corrected < 0.001 ? '< 0.001' : corrected.toFixed(3), verdict],
    ]
  })
  const written = suite.model.tasks.flatMap(({ name, conditions }) => {
    const [own] = conditions
    const [base] = suite.base.tasks.find((task) => task.name === name)?.conditions ?? []
    if (!own?.speed || !base?.speed) return []
    return [
      [
        ...[name, base.speed.aggregate.toFixed(1), own.speed.aggregate.toFixed(1)],
        ...[own.speed.tokensPerForward.toFixed(2), base.speed.median.toFixed(2), own.speed.median.toFixed(2)],
      ],
    ]
  })
  return [
    suite.comparisons.verdict,
    table([['task or text', 'metric', 'rows', 'base', 'model', 'difference, 95 %', 'p', ''], ...differences]),
    table([
      ['task', 'base: tokens/s', 'model: tokens/s', 'TPF', 'base: s an answer', 'model: s an answer'],
      ...written,
    ]),
  ].join('\n\n')
}

type Interval = readonly [low: number, high: number] | null

export interface Judged {
  set: string
  label: string
  filter: string
  labelled: number
  positives: number
  precision: number | null
  precisionInterval: Interval
  recall: number | null
  recallInterval: Interval
  /** Share of the cases without the label that are flagged; null where there are none. */
  falseAlarms: number | null
}

const within = (value: number | null, interval: Interval): string =>
  value === null || interval === null ? '' : `${value.toFixed(2)} (${interval.map((end) => end.toFixed(2)).join('–')})`

export const judged = (lines: readonly Judged[]): string =>
  table([
    ['set', 'label', 'cases', 'positive', 'filter', 'precision', 'recall', 'false alarms'],
    ...lines.map((line) => [
      line.set,
      line.label,
      figure(line.labelled),
      figure(line.positives),
      line.filter,
      within(line.precision, line.precisionInterval),
      within(line.recall, line.recallInterval),
      line.falseAlarms === null ? '' : line.falseAlarms.toFixed(3),
    ]),
  ])
