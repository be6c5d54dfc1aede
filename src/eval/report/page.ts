// The frame of a report's page and what pages have in common: no script, no request to anywhere, light and dark, readable on a phone.
import type { Figure } from './figures.ts'
import type { Table } from './tables.ts'

// Categories: Okabe and Ito's palette, in the shades that keep 3:1 on each background. Order (block sizes): viridis, cut
// where it would vanish in the background. Both are distinguishable with the common colour vision deficiencies.
const style = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5b6570;--rule:#dfe3e8;--panel:#f6f7f9;
--ar:#b85a00;--diffusion:#0072b2;--random:#97497a;--line:#8a939d;
--o0:#440154;--o1:#46327e;--o2:#365c8d;--o3:#277f8e;--o4:#1fa187;--o5:#3aa95b;--o6:#7ba51f;--o7:#b59a00}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#a1abb5;--rule:#30363d;--panel:#1d2125;
--ar:#f0a94b;--diffusion:#56b4e9;--random:#dd9ac2;--line:#7d8791;
--o0:#8c7bd1;--o1:#7292d6;--o2:#5aa5cf;--o3:#43b5bd;--o4:#3fc79a;--o5:#7bd35f;--o6:#b8de4a;--o7:#fde725}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .5rem}
h2{font-size:1.15rem;margin:2.4rem 0 .6rem}
p{margin:.4rem 0;max-width:75ch}
.soft,figcaption,.note{color:var(--soft)}
.note,figcaption{font-size:.875rem;max-width:75ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin:1.4rem 0 0;padding:0}
.tiles div{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:.7rem .9rem}
.tiles dt{color:var(--soft);font-size:.82rem}
.tiles dd{margin:0;font-size:1.55rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.tiles dd+dd{font-size:.82rem;font-weight:400;color:var(--soft)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:2rem 1.75rem;margin-top:2rem}
figure{margin:0;min-width:0}
figure h2{margin:0 0 .15rem}
figure svg{display:block;width:100%;height:auto;max-width:40rem;overflow:visible;color:var(--fg);
font:13px system-ui,-apple-system,"Segoe UI",sans-serif}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;list-style:none;margin:.35rem 0 .2rem;padding:0;font-size:.85rem}
.legend svg{display:inline-block;width:1.6rem;height:.7rem;margin-right:.4rem;vertical-align:baseline}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.925rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem 1.4rem .35rem 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--soft);white-space:nowrap}
td.number,th.number{text-align:right;white-space:nowrap}
table.samples td{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85rem;white-space:pre-wrap;
overflow-wrap:anywhere;min-width:9rem;max-width:26rem}
dl.run{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.25rem;margin:.5rem 0}
dl.run dt{color:var(--soft)}
dl.run dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;font-size:.85rem}
summary{cursor:pointer}
@media (max-width:36rem){main{padding:1.25rem 1rem 3rem}h1{font-size:1.35rem}dl.run{grid-template-columns:1fr;gap:0}
dl.run dd{margin-bottom:.5rem}figure svg{font-size:17px}}
@media print{pre,.tiles div{break-inside:avoid}figure{break-inside:avoid}}
`

/** A whole page around its body, which is markup. */
export const frame = ({ title, version, body }: { title: string; version: string | undefined; body: string }): string =>
  `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="generator" content="unmask ${escapeHtml(version ?? '')}">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${body}
</main>
</body>
</html>
`

/** The numbers that a reader looks for first. */
export const tiles = (list: readonly Parameters<typeof tile>[0][]): string =>
  list.length > 0 ? `<dl class="tiles">\n${list.map(tile).join('\n')}\n</dl>` : ''

function tile({ label, value, remark }: { label: string; value: string; remark: string }): string {
  const second = remark === '' ? '' : `<dd>${escapeHtml(remark)}</dd>`
  return `<div><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd>${second}</div>`
}

export const figures = (list: readonly Figure[]): string =>
  list.length > 0 ? `<div class="figures">\n${list.map(figure).join('\n')}\n</div>` : ''

function figure({ id, title, caption, legend, svg }: Figure): string {
  const entries = legend.map(
    ({ color, label, dashed }) =>
      `<li><svg viewBox="0 0 26 10" aria-hidden="true"><path d="M0 5H26" style="stroke:${color};stroke-width:3${dashed ? ';stroke-dasharray:6 4' : ''}"/></svg>${escapeHtml(label)}</li>`,
  )
  return `<figure id="${id}">
<h2>${escapeHtml(title)}</h2>
${entries.length > 0 ? `<ul class="legend">${entries.join('')}</ul>` : ''}
${svg}
<figcaption>${escapeHtml(caption)}</figcaption>
</figure>`
}

export function section({ title, note, head, rows }: Table): string {
  // A column of measurements is aligned to the right with its heading; the first column holds names.
  const numeric = head.map(
    (_, column) => column > 0 && rows.every((row) => /^[–−<\d.,\s%()×]*$/.test(row[column] ?? '')),
  )
  const cell = (tag: 'th' | 'td') => (text: string, column: number) =>
    `<${tag}${numeric[column] ? ' class="number"' : ''}>${escapeHtml(text)}</${tag}>`
  const hasHead = head.some((text) => text !== '')
  return `<h2>${escapeHtml(title)}</h2>
${note === '' ? '' : `<p class="note">${escapeHtml(note)}</p>`}
<div class="scroll"><table>
${hasHead ? `<thead><tr>${head.map(cell('th')).join('')}</tr></thead>\n` : ''}<tbody>
${rows.map((row) => `<tr>${row.map(cell('td')).join('')}</tr>`).join('\n')}
</tbody>
</table></div>`
}

/** Model output and file names are foreign text: nothing in them may become markup. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`)
}
