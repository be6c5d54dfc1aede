// The figures of a report as SVG text. Colours are CSS variables of the page, so that light and dark share one drawing.
import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import type { EvaluationPoint, ReportData, TokenEfficiency } from './types.ts'

export interface Figure {
  id: string
  title: string
  /** What is to be seen, also for readers who cannot see it. */
  caption: string
  svg: string
  /** Entries of the legend: colour (CSS) and text. */
  legend: { color: string; label: string; dashed?: boolean }[]
}

/** Number of colours in the ordered palette `--o0` ... of the page's style sheet. */
const orderedColors = 8

const width = 560
const height = 342
const margins = { marginLeft: 58, marginRight: 18, marginTop: 30, marginBottom: 54 }

/** All figures that the data has numbers for. */
export function drawFigures(data: ReportData): Figure[] {
  const figures: (Figure | undefined)[] = [
    lossFigure(data),
    nelboFigure(data),
    sweepFigure(data),
    data.tokenEfficiency && efficiencyFigure(data.tokenEfficiency),
    speedFigure(data),
  ]
  return figures.filter((figure) => figure !== undefined)
}

/** A plot as SVG text, of the size of all others unless it says so. */
export function draw(options: Plot.PlotOptions): string {
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const plot = Plot.plot({ ...margins, width, height, style: { background: 'none' }, ...options, document })
  // Inside HTML an SVG needs no namespace declarations, and the page has its own style sheet.
  for (const style of plot.querySelectorAll('style')) style.remove()
  plot.removeAttribute('width')
  plot.removeAttribute('height')
  plot.setAttribute('role', 'img')
  return plot.outerHTML
}

/** Room below the axis, so that its first number does not meet that of the other axis. */
const below = { tickPadding: 8 } as const
const tokensAxis = { ...below, label: 'training tokens', tickFormat: 's', ticks: 6, nice: true } as const

/** The block sizes of a run in ascending order with their colours, the same in each of its figures. */
function blockColors({ points, evaluations }: NonNullable<ReportData['training']>): Map<number, string> {
  const sizes = [...points, ...evaluations].map(({ blockSize }) => blockSize)
  const distinct = [...new Set(sizes.filter((size) => size !== undefined))].sort((a, b) => a - b)
  return new Map(
    distinct.map((size, index) => {
      const position = distinct.length === 1 ? 0 : Math.round((index * (orderedColors - 1)) / (distinct.length - 1))
      return [size, `var(--o${position})`]
    }),
  )
}

/** Consecutive points of one block size, for lines that change colour where the stage changes. */
function stages<T extends { blockSize: number | undefined }>(points: readonly T[]): (T & { stage: number })[] {
  let stage = 0
  const out: (T & { stage: number })[] = []
  for (const [index, point] of points.entries()) {
    const before = points[index - 1]
    if (before && before.blockSize !== point.blockSize) stage++
    out.push({ ...point, stage })
  }
  return out
}

/** At most `limit` points: means of loss over equal runs of steps that do not cross a stage. */
function thin<T extends { loss: number; tokens: number; stage: number }>(points: readonly T[], limit: number): T[] {
  const size = Math.ceil(points.length / limit)
  if (size <= 1) return [...points]
  const out: T[] = []
  let group: T[] = []
  const flush = () => {
    const last = group.at(-1)
    if (last) out.push({ ...last, loss: group.reduce((sum, point) => sum + point.loss, 0) / group.length })
    group = []
  }
  for (const point of points) {
    if (group.length === size || (group[0] && group[0].stage !== point.stage)) flush()
    group.push(point)
  }
  flush()
  return out
}

function lossFigure({ training }: ReportData): Figure | undefined {
  if (!training || training.points.length < 2) return undefined
  const staged = stages(training.points.filter((point) => Number.isFinite(point.loss)))
  const points = thin(staged, 240)
  const colors = blockColors(training)
  const color = (point: { blockSize: number | undefined }) => colors.get(point.blockSize ?? -1) ?? 'var(--diffusion)'
  return {
    id: 'loss',
    title: 'Training loss',
    caption:
      points.length < staged.length
        ? `Objective over training tokens; each point is the mean of up to ${Math.ceil(staged.length / 240)} steps.`
        : 'Objective over training tokens, every step.',
    legend: legendOf(colors, points),
    svg: draw({
      ariaLabel: 'Training loss over tokens',
      x: tokensAxis,
      y: { label: 'loss (nats per token)', grid: true, zero: true, nice: true },
      marks: [
        Plot.line(points, { x: 'tokens', y: 'loss', z: 'stage', stroke: color, strokeWidth: 1.6 }),
        // A stage of a single point has no line.
        Plot.dot(points, { x: 'tokens', y: 'loss', fill: color, r: 1.4 }),
      ],
    }),
  }
}

function nelboFigure({ training, ar }: ReportData): Figure | undefined {
  if (!training || training.evaluations.length === 0) return undefined
  const points = stages(training.evaluations)
  const colors = blockColors(training)
  const color = (point: { blockSize: number | undefined }) => colors.get(point.blockSize ?? -1) ?? 'var(--diffusion)'
  const base = training.objective === 'ar' ? undefined : ar?.bitsPerByte
  return {
    id: 'nelbo',
    title: training.objective === 'diffusion' ? 'NELBO on held-out text' : 'Likelihood of held-out text',
    caption:
      'Bits per byte at the final block size; colours show the block size that training was at, bars are two standard errors.' +
      (base === undefined ? '' : ' The dashed line is the base model, one token at a time.'),
    legend: [
      ...legendOf(colors, points),
      ...(base === undefined ? [] : [{ color: 'var(--ar)', label: 'AR base', dashed: true }]),
    ],
    svg: draw({
      ariaLabel: 'Bits per byte over tokens',
      x: tokensAxis,
      y: { label: 'bits per byte', grid: true, nice: true },
      marks: [
        ...(base === undefined
          ? []
          : [Plot.ruleY([base], { stroke: 'var(--ar)', strokeWidth: 1.8, strokeDasharray: '6 4' })]),
        Plot.line(points, { x: 'tokens', y: 'bitsPerByte', stroke: 'var(--line)', strokeWidth: 1.2 }),
        Plot.ruleX(points, {
          x: 'tokens',
          y1: ({ bitsPerByte, bitsPerByteStderr = 0 }: EvaluationPoint) => bitsPerByte - 2 * bitsPerByteStderr,
          y2: ({ bitsPerByte, bitsPerByteStderr = 0 }: EvaluationPoint) => bitsPerByte + 2 * bitsPerByteStderr,
          stroke: color,
          strokeOpacity: 0.6,
        }),
        Plot.dot(points, { x: 'tokens', y: 'bitsPerByte', fill: color, r: 3.6 }),
      ],
    }),
  }
}

function sweepFigure({ sweep, ar, own, diffusion }: ReportData): Figure | undefined {
  const points = sweep.flatMap((point) => (point.score ? [{ ...point, percent: point.score.accuracy * 100 }] : []))
  if (points.length === 0) return undefined
  points.sort((a, b) => a.tokensPerForward - b.tokensPerForward)
  const base =
    ar?.score && ar.tokensPerForward !== undefined ? [{ x: ar.tokensPerForward, y: ar.score.accuracy * 100 }] : []
  const furthest = Math.max(...points.map((point) => point.tokensPerForward))
  const labels = placeLabels(
    points.map(({ tokensPerForward, threshold }) => ({
      x: (tokensPerForward / furthest) * (width - margins.marginLeft - margins.marginRight),
      text: String(threshold),
    })),
  )
  const lowest = Math.max(0, 10 * Math.floor(Math.min(...points.map((point) => point.score!.low * 10)) - 0.5))
  return {
    id: 'sweep',
    title: 'Score against tokens per forward',
    caption:
      'Each point is one confidence threshold; bars are 95 % intervals of the score.' +
      (own ? ' At threshold 1 every draft is checked.' : ''),
    legend: [
      { color: 'var(--diffusion)', label: 'diffusion' },
      ...(base.length > 0 ? [{ color: 'var(--ar)', label: 'AR base' }] : []),
    ],
    svg: draw({
      ariaLabel: 'Task score over tokens per forward',
      x: { ...below, label: 'tokens per forward', nice: true, zero: true },
      y: { label: 'right answers (%)', grid: true, domain: [lowest, 100] },
      marks: [
        Plot.ruleX(points, {
          x: 'tokensPerForward',
          y1: (point: (typeof points)[number]) => point.score!.low * 100,
          y2: (point: (typeof points)[number]) => point.score!.high * 100,
          stroke: 'var(--diffusion)',
          strokeOpacity: 0.45,
        }),
        Plot.line(points, { x: 'tokensPerForward', y: 'percent', stroke: 'var(--diffusion)', strokeWidth: 1.6 }),
        Plot.dot(points, {
          x: 'tokensPerForward',
          y: 'percent',
          fill: 'var(--diffusion)',
          r: (point: (typeof points)[number]) => (point.threshold === diffusion?.threshold ? 5.5 : 3.6),
        }),
        ...labels.map(({ dy, index }) =>
          Plot.text([points[index]!], {
            x: 'tokensPerForward',
            y: 'percent',
            text: (point: (typeof points)[number]) => String(point.threshold),
            fill: 'currentColor',
            dy,
          }),
        ),
        Plot.dot(base, { x: 'x', y: 'y', symbol: 'square', fill: 'var(--ar)', r: 4.5 }),
      ],
    }),
  }
}

/** Distances of a label from its point: just below and above, then further away. */
const LABEL_OFFSETS = [17, -15, 35, -33]
/** Widest character of a label in the largest type, that of phones. */
const LABEL_CHARACTER = 10

/** Where the labels of points go, from left to right, so that neighbours at the same height do not meet. */
export function placeLabels(points: readonly { x: number; text: string }[]): { index: number; dy: number }[] {
  const ends = LABEL_OFFSETS.map(() => Number.NEGATIVE_INFINITY)
  return points.map(({ x, text }, index) => {
    const half = (text.length * LABEL_CHARACTER) / 2
    const free = ends.findIndex((end) => end <= x - half)
    const row = free === -1 ? 0 : free
    ends[row] = x + half
    return { index, dy: LABEL_OFFSETS[row]! }
  })
}

function speedFigure({ ar, own, diffusion }: ReportData): Figure | undefined {
  if (ar?.tokensPerSecond === undefined || diffusion?.tokensPerSecond === undefined) return undefined
  const bars = [
    { name: 'AR base', value: ar.tokensPerSecond, color: 'var(--ar)' },
    { name: own ? 'speculative' : 'diffusion', value: diffusion.tokensPerSecond, color: 'var(--diffusion)' },
  ]
  return {
    id: 'speed',
    title: 'Decoding speed',
    caption: 'Tokens per second on the same prompts, one request at a time, in one run.',
    legend: [],
    svg: draw({
      ariaLabel: 'Tokens per second',
      height: 182,
      marginTop: 6,
      marginLeft: 82,
      marginRight: 64,
      x: { label: 'tokens per second', grid: true, nice: true },
      y: { label: null, domain: bars.map((bar) => bar.name), tickSize: 0 },
      marks: [
        Plot.barX(bars, {
          x: 'value',
          y: 'name',
          fill: (bar: (typeof bars)[number]) => bar.color,
          insetTop: 8,
          insetBottom: 8,
        }),
        Plot.text(bars, {
          x: 'value',
          y: 'name',
          text: (bar: (typeof bars)[number]) => bar.value.toFixed(bar.value < 100 ? 1 : 0),
          textAnchor: 'start',
          dx: 6,
          fill: 'currentColor',
        }),
        Plot.ruleX([0], { stroke: 'currentColor' }),
      ],
    }),
  }
}

function efficiencyFigure(efficiency: TokenEfficiency): Figure {
  const { fromBase, fromRandom, target } = efficiency
  const series: { points: EvaluationPoint[]; color: string; symbol: 'circle' | 'square' }[] = [
    { points: fromBase, color: 'var(--diffusion)', symbol: 'circle' },
    { points: fromRandom, color: 'var(--random)', symbol: 'square' },
  ]
  return {
    id: 'efficiency',
    title: 'What the base weights save',
    caption: 'NELBO on held-out text over training tokens, same data, schedule and architecture.',
    legend: [
      { color: 'var(--diffusion)', label: 'from base weights' },
      { color: 'var(--random)', label: 'from random weights' },
      { color: 'var(--line)', label: 'final NELBO from base weights', dashed: true },
    ],
    svg: draw({
      ariaLabel: 'NELBO over training tokens, from base and from random weights',
      x: tokensAxis,
      y: { label: 'NELBO (nats per token)', grid: true, nice: true },
      marks: [
        Plot.ruleY([target], { stroke: 'var(--line)', strokeDasharray: '6 4', strokeWidth: 1.4 }),
        ...series.flatMap(({ points, color, symbol }) => [
          Plot.line(points, { x: 'tokens', y: 'nelbo', stroke: color, strokeWidth: 1.8 }),
          Plot.dot(points, { x: 'tokens', y: 'nelbo', fill: color, symbol, r: 3 }),
        ]),
      ],
    }),
  }
}

/** The colours of the block sizes that a figure shows. */
function legendOf(
  colors: ReadonlyMap<number, string>,
  points: readonly { blockSize: number | undefined }[],
): Figure['legend'] {
  const shown = new Set(points.map(({ blockSize }) => blockSize))
  return [...colors].filter(([size]) => shown.has(size)).map(([size, color]) => ({ color, label: `block ${size}` }))
}
