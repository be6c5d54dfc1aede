// The report of a training run as one HTML page.
import { stringify } from 'yaml'
import { drawFigures } from './figures.ts'
import { escapeHtml, figures, frame, section, tiles } from './page.ts'
import { headline, provenance, tables } from './tables.ts'
import type { ReportData, Sample } from './types.ts'

export function renderHtml(data: ReportData): string {
  const body = `<p>${escapeHtml(data.summary)}</p>
${tiles(headline(data))}
${figures(drawFigures(data))}
${tables(data).map(section).join('\n')}
${samples(data.samples)}
<h2>Run</h2>
<dl class="run">
${provenance(data)
  .map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`)
  .join('\n')}
</dl>
<p class="soft">Command</p>
<pre>${escapeHtml(data.command)}</pre>
<details><summary>Recipe</summary>
<pre>${escapeHtml(stringify(data.settings).trimEnd())}</pre>
</details>`
  return frame({ title: data.title, version: data.versions.unmask, body })
}

function samples(list: readonly Sample[]): string {
  if (list.length === 0) return ''
  const withAnswers = list.some((sample) => sample.expected !== undefined)
  const cell = (text: string | undefined) => `<td>${text === undefined ? '–' : escapeHtml(text)}</td>`
  const rows = list.map(
    ({ prompt, expected, ar, diffusion }) =>
      `<tr>${cell(prompt)}${withAnswers ? cell(expected) : ''}${cell(ar)}${cell(diffusion)}</tr>`,
  )
  return `<h2>Samples</h2>
<div class="scroll"><table class="samples">
<thead><tr><th>prompt</th>${withAnswers ? '<th>answer</th>' : ''}<th>AR base</th><th>diffusion</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table></div>`
}
