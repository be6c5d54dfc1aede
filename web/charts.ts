// Two charts of the session: tokens per forward and latency of its generations, oldest to newest.
import { h, s } from './dom.ts'
import { type Sample, seconds } from './session.ts'

/** As many as are drawn, the newest. */
const MOST = 40
const size = { width: 300, height: 116, left: 46, right: 8, top: 8, bottom: 8 }

export function createCharts(): { element: HTMLElement; update(samples: readonly Sample[]): void } {
  const empty = h('p', { class: 'hint' }, 'Numbers appear with the first answer.')
  const content = h('div', {})
  const element = h('div', { class: 'charts' }, empty, content)
  return {
    element,
    update(samples) {
      const shown = samples.slice(-MOST)
      empty.hidden = shown.length > 0
      const tpf = chart(
        shown,
        'Tokens per forward',
        (sample) => sample.tokensPerForward,
        (value) => value.toFixed(value > 0 && value < 1 ? 2 : 1),
      )
      const latency = chart(
        shown,
        'Latency',
        (sample) => sample.seconds,
        seconds,
        (sample) => sample.firstSeconds,
      )
      if (shown.length > 0) content.replaceChildren(tpf, latency, key(), table(shown))
    },
  }
}

function chart(
  samples: readonly Sample[],
  title: string,
  value: (sample: Sample) => number,
  format: (value: number) => string,
  first?: (sample: Sample) => number,
): HTMLElement {
  const { width, height, left, right, top, bottom } = size
  const most = ceiling(Math.max(...samples.map(value), 1e-3))
  const y = (amount: number) => height - bottom - (amount / most) * (height - top - bottom)
  const step = (width - left - right) / Math.max(samples.length, 8)
  const x = (index: number) => left + step * (index + 0.5)
  const latest = samples[samples.length - 1]
  const svg = s('svg', {
    ...{ viewBox: `0 0 ${width} ${height}`, role: 'img' },
    'aria-label': `${title} of ${samples.length} generations; the latest ${latest ? format(value(latest)) : ''}`,
  })
  for (const share of [0, 0.5, 1])
    svg.append(
      s('line', { class: 'grid', x1: left, x2: width - right, y1: y(most * share), y2: y(most * share) }),
      s('text', { class: 'tick', x: left - 5, y: y(most * share) + 3.5, 'text-anchor': 'end' }, format(most * share)),
    )
  for (const [index, sample] of samples.entries()) {
    const at = { x: x(index), y: y(value(sample)) }
    const { model, mode, task } = sample
    const group = s('g', { class: `point ${mode}` }, s('title', {}, `${task}, ${model}: ${format(value(sample))}`))
    group.append(s('line', { class: 'stem', x1: at.x, x2: at.x, y1: y(0), y2: at.y }))
    // Another shape, not only another colour.
    if (mode === 'ar') group.append(s('rect', { x: at.x - 3, y: at.y - 3, width: 6, height: 6 }))
    else group.append(s('circle', { cx: at.x, cy: at.y, r: 3.4 }))
    if (first) {
      const early = y(first(sample))
      group.append(s('line', { class: 'first', x1: at.x - 3.5, x2: at.x + 3.5, y1: early, y2: early }))
    }
    svg.append(group)
  }
  const caption = first ? `${title}, dash at the first token` : title
  return h('figure', {}, h('figcaption', {}, caption), svg)
}

/** The next of 1, 2, 5, 10 … above. */
function ceiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((factor) => factor * power).find((limit) => limit >= value) ?? 10 * power
}

function key(): HTMLElement {
  const mark = (mode: 'ar' | 'diffusion') =>
    s(
      'svg',
      { viewBox: '0 0 10 10', class: `mark point ${mode}`, 'aria-hidden': 'true' },
      mode === 'ar' ? s('rect', { x: 2, y: 2, width: 6, height: 6 }) : s('circle', { cx: 5, cy: 5, r: 3.4 }),
    )
  return h('p', { class: 'key' }, mark('diffusion'), 'several tokens a step', mark('ar'), 'one')
}

function table(samples: readonly Sample[]): HTMLElement {
  const head = ['', 'model', 'tokens', 'forwards', 'TPF', 'first', 'all']
  const rows = samples.toReversed().map((sample) => {
    const { task, model, tokens, forwards, tokensPerForward, firstSeconds } = sample
    const cells = [model, tokens, forwards, tokensPerForward.toFixed(2), seconds(firstSeconds), seconds(sample.seconds)]
    return h('tr', {}, h('th', { scope: 'row' }, task), ...cells.map((cell) => h('td', {}, cell)))
  })
  return h(
    'details',
    {},
    h('summary', {}, 'Numbers'),
    h(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Numbers of the session' },
      h(
        'table',
        {},
        h('thead', {}, h('tr', {}, ...head.map((name) => h('th', { scope: 'col' }, name)))),
        h('tbody', {}, ...rows),
      ),
    ),
  )
}
