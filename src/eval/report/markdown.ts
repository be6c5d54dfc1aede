// A report as Markdown: the same tables as the page, the figures by reference to it.
import { stringify } from 'yaml'
import { headline, provenance, tables } from './tables.ts'
import type { ReportData } from './types.ts'

export function renderMarkdown(data: ReportData): string {
  const parts = [
    `# ${escapeMarkdown(data.title)}`,
    escapeMarkdown(data.summary),
    'Figures: [report.html](report.html). Data: [report.json](report.json).',
  ]
  const tiles = headline(data)
  if (tiles.length > 0) {
    parts.push(
      tiles
        .map(
          ({ label, value, remark }) =>
            `- ${label}: **${escapeMarkdown(value)}**${remark === '' ? '' : ` (${escapeMarkdown(remark)})`}`,
        )
        .join('\n'),
    )
  }
  for (const { title, note, head, rows } of tables(data)) {
    parts.push(`## ${title}`)
    if (note !== '') parts.push(note)
    parts.push(pipeTable(head, rows))
  }
  if (data.samples.length > 0) {
    parts.push('## Samples')
    const withAnswers = data.samples.some((sample) => sample.expected !== undefined)
    parts.push(
      pipeTable(
        ['prompt', ...(withAnswers ? ['answer'] : []), 'AR base', 'diffusion'],
        data.samples.map(({ prompt, expected, ar, diffusion }) =>
          [prompt, ...(withAnswers ? [expected] : []), ar, diffusion].map((text) => codeSpan(text)),
        ),
        (cell) => cell,
      ),
    )
  }
  parts.push('## Run', pipeTable(['', ''], provenance(data)))
  parts.push('Command:', fence(data.command, 'sh'), 'Recipe:', fence(stringify(data.settings).trimEnd(), 'yaml'))
  return `${parts.join('\n\n')}\n`
}

function pipeTable(head: readonly string[], rows: readonly (readonly string[])[], cell = escapeMarkdown): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map((row) => line(row.map(cell)))].join('\n')
}

/** Model output is foreign text: nothing in it may become markup. */
function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_[\]<>|#]/g, (mark) => `\\${mark}`).replace(/\s*\n\s*/g, ' ')
}

function codeSpan(text: string | undefined): string {
  if (text === undefined) return '–'
  const flat = text.replaceAll('\n', '↵').replaceAll('|', '\\|')
  const longest = Math.max(0, ...[...flat.matchAll(/`+/g)].map((match) => match[0].length))
  const ticks = '`'.repeat(longest + 1)
  return flat === '' ? '(empty)' : `${ticks} ${flat} ${ticks}`
}

function fence(text: string, language: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((match) => match[0].length))
  const ticks = '`'.repeat(longest + 1)
  return `${ticks}${language}\n${text}\n${ticks}`
}
