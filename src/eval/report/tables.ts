// The tables of a report, as titles and cells; Markdown and HTML are made from the same ones.
import { accountRows } from '../../account/account.ts'
import type { DecodingSummary, ModelSummary, ReportData, ScoreSummary } from './types.ts'

export interface Table {
  title: string
  /** A sentence below the title; may be empty. */
  note: string
  head: string[]
  rows: string[][]
}

const missing = '–'

function fixed(value: number | undefined, digits: number): string {
  return value === undefined || !Number.isFinite(value) ? missing : value.toFixed(digits)
}

/** "2.273 ± 0.004": with the standard error where there is one. */
function withError(value: number | undefined, stderr: number | undefined, digits: number): string {
  return stderr ? `${fixed(value, digits)} ± ${fixed(stderr, digits)}` : fixed(value, digits)
}

/** 1234567 -> "1,234,567". */
function grouped(value: number | undefined): string {
  return value === undefined || !Number.isFinite(value) ? missing : Math.round(value).toLocaleString('en-US')
}

/** "93.5 % (90.1–95.8)". */
function scoreText(score: ScoreSummary | undefined): string {
  if (!score || score.rows === 0) return missing
  const percent = (share: number) => (100 * share).toFixed(1)
  return `${percent(score.accuracy)} % (${percent(score.low)}–${percent(score.high)})`
}

/** "2 h 3 min", "4 min 5 s", "6.7 s". */
function timeText(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return missing
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

const gibibytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`

/** How the headline figures were decoded. */
const settingText = ({ strategy, threshold, blockSize }: NonNullable<ReportData['diffusion']>): string =>
  threshold === 1 ? `${blockSize} masks, all drafts checked` : blockText({ strategy, threshold, blockSize })

const blockText = ({ strategy, threshold, blockSize }: { strategy?: string; threshold: number; blockSize: number }) =>
  [`block ${blockSize}`, ...(strategy && strategy !== 'threshold' ? [strategy] : []), `threshold ${threshold}`].join(
    ', ',
  )

/** The numbers that a reader looks for first: label, value, remark. */
export function headline(data: ReportData): { label: string; value: string; remark: string }[] {
  const { ar, diffusion, tokenEfficiency: efficiency } = data
  const tiles: { label: string; value: string; remark: string }[] = []
  if (diffusion?.score) {
    const difference = ar?.score ? 100 * (diffusion.score.accuracy - ar.score.accuracy) : undefined
    tiles.push({
      label: 'task score',
      value: `${(100 * diffusion.score.accuracy).toFixed(1)} %`,
      remark:
        difference === undefined ? `${diffusion.score.rows} rows` : `${signed(difference, 1)} points to the AR base`,
    })
  }
  if (diffusion?.tokensPerForward !== undefined) {
    tiles.push({
      label: 'tokens per forward',
      value: fixed(diffusion.tokensPerForward, 2),
      remark: settingText(diffusion),
    })
  }
  if (diffusion?.tokensPerSecond !== undefined) {
    tiles.push({
      label: 'tokens per second',
      value: fixed(diffusion.tokensPerSecond, diffusion.tokensPerSecond < 100 ? 1 : 0),
      remark: ar?.tokensPerSecond ? `${fixed(diffusion.tokensPerSecond / ar.tokensPerSecond, 2)} × the AR base` : '',
    })
  }
  if (diffusion?.bitsPerByte !== undefined) {
    tiles.push({
      label: data.own ? 'bits per byte' : 'bits per byte (bound)',
      value: withError(diffusion.bitsPerByte, diffusion.bitsPerByteStderr, 3),
      remark: ar?.bitsPerByte === undefined ? '' : `AR base ${fixed(ar.bitsPerByte, 3)}`,
    })
  } else if (ar?.bitsPerByte !== undefined) {
    tiles.push({ label: 'bits per byte', value: fixed(ar.bitsPerByte, 3), remark: '' })
  }
  if (efficiency) {
    const { tokensFromBase: base, tokensFromRandom: random } = efficiency
    const last = efficiency.fromRandom.at(-1)?.tokens
    tiles.push({
      label: 'tokens for the same NELBO',
      value: base && random ? `${fixed(base / random, 2)} ×` : base && last ? `< ${fixed(base / last, 2)} ×` : missing,
      remark: 'of what random weights need',
    })
  }
  return tiles
}

function signed(value: number, digits: number): string {
  const text = value.toFixed(digits)
  return Number(text) > 0 ? `+${text}` : text.replace('-', '−')
}

export function tables(data: ReportData): Table[] {
  const found = [comparison(data), taskTable(data), sweepTable(data), efficiencyTable(data), trainingTable(data)]
  return found.filter((table) => table !== undefined)
}

function comparison({ ar, own, diffusion, equal }: ReportData): Table | undefined {
  if (!ar && !diffusion) return undefined
  const cells = (model: ModelSummary | undefined): string[] => [
    withError(model?.bitsPerByte, model?.bitsPerByteStderr, 3),
    withError(model?.nll, model?.stderr, 3),
    scoreText(model?.score),
    fixed(model?.tokensPerForward, 2),
    fixed(model?.tokensPerSecond, 1),
    grouped(model?.forwards),
  ]
  const rows = [['AR base', ...cells(ar)]]
  if (own) rows.push(['AR mode of the converted model', ...cells(own)])
  if (diffusion) rows.push([`${own ? 'speculative' : 'diffusion'} (${settingText(diffusion)})`, ...cells(diffusion)])
  const likelihood = own
    ? 'The likelihood is exact'
    : 'The likelihood of diffusion is a bound, with its standard error over the draws of the noise'
  const same = equal
    ? ` ${equal.same} of ${equal.prompts} answers of the converted model are the same tokens in both modes.`
    : ''
  return {
    title: 'AR against diffusion',
    note: `Same held-out text and prompts, same engine, one run. ${likelihood}; scores are exact match with 95 % intervals.${same}`,
    head: ['model', 'bits/byte', 'nats/token', 'score', 'TPF', 'TPS', 'forwards'],
    rows,
  }
}

function taskTable({ tasks }: ReportData): Table | undefined {
  if (tasks.length === 0) return undefined
  return {
    title: 'Score by task',
    note: '',
    head: ['task', 'rows', 'AR base', 'diffusion'],
    rows: tasks.map(({ task, ar, diffusion }) => [
      task,
      grouped(diffusion?.rows ?? ar?.rows),
      scoreText(ar),
      scoreText(diffusion),
    ]),
  }
}

function sweepTable({ sweep }: ReportData): Table | undefined {
  if (sweep.length === 0) return undefined
  const cells = (point: DecodingSummary): string[] => [
    scoreText(point.score),
    fixed(point.tokensPerForward, 2),
    fixed(point.tokensPerSecond, 1),
    grouped(point.forwards),
  ]
  return {
    title: 'Thresholds',
    note: 'A lower threshold commits more tokens per forward.',
    head: ['threshold', 'score', 'TPF', 'TPS', 'forwards'],
    rows: sweep.map((point) => [String(point.threshold), ...cells(point)]),
  }
}

function efficiencyTable({ tokenEfficiency: efficiency }: ReportData): Table | undefined {
  if (!efficiency) return undefined
  const row = (name: string, curve: { nelbo: number; tokens: number }[], reached: number | undefined): string[] => [
    name,
    grouped(curve.at(-1)?.tokens),
    fixed(curve.at(-1)?.nelbo, 3),
    reached === undefined ? 'not reached' : grouped(reached),
  ]
  return {
    title: 'Tokens for the same NELBO',
    note: `Target: ${fixed(efficiency.target, 3)} nats per token, the last evaluation of the run from base weights.`,
    head: ['start', 'tokens trained', 'last NELBO', 'tokens to the target'],
    rows: [
      row('base weights', efficiency.fromBase, efficiency.tokensFromBase),
      row('random weights', efficiency.fromRandom, efficiency.tokensFromRandom),
    ],
  }
}

function trainingTable({ training }: ReportData): Table | undefined {
  if (!training) return undefined
  const rows = [
    ['tokens', grouped(training.tokens)],
    ['steps', grouped(training.steps)],
    ['time', timeText(training.seconds)],
    ['tokens per second', grouped(training.tokensPerSecond)],
  ]
  if (training.objective === 'diffusion') {
    rows.push([
      'block sizes',
      training.schedule.map((stage) => `${stage.blockSize} (${grouped(stage.tokens)})`).join(', '),
    ])
  }
  const last = training.points.slice(-100)
  if (last.some(({ paddingLoss }) => paddingLoss !== undefined)) {
    const mean = (values: (number | undefined)[]) => {
      const known = values.filter((value) => value !== undefined)
      return fixed(known.reduce((a, b) => a + b, 0) / known.length, 3)
    }
    const [text, padding] = [
      mean(last.map(({ textLoss }) => textLoss)),
      mean(last.map(({ paddingLoss }) => paddingLoss)),
    ]
    rows.push([`loss of the last ${last.length} steps`, `${text} on text, ${padding} on padding`])
  }
  if (training.peakMemoryBytes !== undefined) rows.push(['peak memory', gibibytes(training.peakMemoryBytes)])
  if (training.account) rows.push(...accountRows(training.account).slice(2))
  if (training.interrupted) rows.push(['state', 'stopped before the last token'])
  return { title: 'Training', note: '', head: ['', ''], rows }
}

/** What is needed to repeat the run. */
export function provenance(data: ReportData): [string, string][] {
  const { machine, model } = data
  return [
    [
      'model',
      `${model.name} (${model.architecture}, ${grouped(model.parameters)} parameters, ${grouped(model.vocabSize)} tokens)`,
    ],
    ...(model.maskToken
      ? ([['mask token', `${model.maskToken.token} (${model.maskToken.id})`]] as [string, string][])
      : []),
    ['seed', String(data.seed)],
    ['machine', `${machine.cpu}, ${machine.cores} cores, ${gibibytes(machine.memoryBytes)}, ${machine.platform}`],
    ['threads', String(machine.threads)],
    [
      'versions',
      Object.entries(data.versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(', '),
    ],
    ['date', data.created],
  ]
}
