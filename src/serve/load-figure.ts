// The figure of a rate sweep as a file of its own: time to the first token and throughput over the request rate.
import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import type { LoadResult } from './load-test.ts'

const size = { width: 560, height: 330, marginLeft: 58, marginRight: 18, marginTop: 30, marginBottom: 42 }

/** SVG with two panels, a line per model. */
export function loadFigure(results: readonly LoadResult[]): string {
  const named = results.map((result) => ({
    ...result,
    label: result.mode ? `${result.model} (${result.mode})` : result.model,
    milliseconds: result.firstToken.p95 * 1000,
  }))
  const labels = [...new Set(named.map(({ label }) => label))]
  const panel = (y: 'milliseconds' | 'tokensPerSecond', label: string, offset: number): string => {
    const { document } = parseHTML('<!doctype html><html><body></body></html>')
    const plot = Plot.plot({
      ...size,
      style: { fontFamily: 'system-ui, sans-serif' },
      x: {
        label: 'requests per second',
        type: 'log',
        grid: true,
        ticks: [...new Set(named.map(({ rate }) => rate))],
        tickFormat: 'd',
      },
      y: { label, grid: true, zero: true },
      color: { domain: labels, range: ['#4269d0', '#ef6c3b', '#2f9e6e', '#a463f2'] },
      marks: [
        Plot.line(named, { x: 'rate', y, stroke: 'label', marker: 'dot' }),
        Plot.text(
          named.filter((point, i) => named[i + 1]?.label !== point.label),
          { x: 'rate', y, text: 'label', fill: 'label', textAnchor: 'end', dy: -10 },
        ),
      ],
      document,
    })
    // Its style sheet is for pages.
    for (const style of plot.querySelectorAll('style')) style.remove()
    plot.setAttribute('x', String(offset))
    plot.setAttribute('y', '0')
    return plot.outerHTML
  }
  const width = 2 * size.width
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${size.height}" width="${width}" height="${size.height}">
<rect width="${width}" height="${size.height}" fill="white"/>
${panel('milliseconds', 'time to first token, p95, ms', 0)}
${panel('tokensPerSecond', 'tokens per second', size.width)}
</svg>
`
}
