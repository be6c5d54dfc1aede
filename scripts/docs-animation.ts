// `npm run docs:animation` draws docs/images/unmasking.svg: prompts answered by the embedded base and by the model that
// `unmask quickstart` makes of it, forward by forward, as `unmask generate` reports them.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PROMPTS = ['count(fedcbaabcdeffeed)=', 'reverse(blocksofletters)=', 'sort(8304117592640)=']
const MODELS = { 'one by one': 'models/tiny', drafted: process.argv[2] ?? 'runs/quickstart/model' }

/** Seconds of a forward, and of the rest before all begins anew. */
const FORWARD = 0.4
const REST = 2.6

interface Cell {
  text: string
  /** The forward that decided it, counting from 0. */
  step: number
}

interface Row {
  label: string
  prompt: string
  cells: Cell[]
  forwards: number
  blocks: boolean
}

function decode(label: string, model: string, prompt: string): Row {
  const flags = ['generate', model, '--prompt', prompt, '--show', '--json']
  const output = execFileSync(process.execPath, ['bin/unmask.js', ...flags], { cwd: ROOT, encoding: 'utf8' })
  const { mode, promptTokens, committed, ids, forwards } = JSON.parse(output) as {
    mode: string
    promptTokens: number
    ids: number[]
    forwards: number
    committed: { position: number; step: number }[]
  }
  const cells = ids.map((id, i) => ({
    // The tokens of the embedded model are bytes; those from 256 on are special, here the end of the text.
    text: id < 256 ? String.fromCharCode(id) : '·',
    step: committed.find(({ position }) => position === promptTokens + i)!.step,
  }))
  return { label, prompt, cells, forwards, blocks: mode !== 'ar' }
}

const rows = PROMPTS.flatMap((prompt) => Object.entries(MODELS).map(([label, model]) => decode(label, model, prompt)))
const frames = Math.max(...rows.map(({ forwards }) => forwards))
const seconds = FORWARD * (frames + 1) + REST
const share = (frame: number) => ((100 * FORWARD * frame) / seconds).toFixed(2)

const [CHARACTER, LINE, LEFT, TOP] = [9.6, 26, 104, 34]
const WIDTH = 680
const height = TOP + PROMPTS.length * (2 * LINE + 18) - 26
const escaped = (text: string) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]!)

/** From its forward on a cell is text: fresh for one frame, then plain. Before, in blocks, it is a mask. */
const keyframes = Array.from({ length: frames }, (_, step) => {
  const [at, settled] = [share(step + 1), share(step + 2)]
  return [
    `@keyframes t${step}{0%,${at}%{opacity:0}${at}1%,${settled}%{opacity:1;fill:var(--fresh)}${settled}1%,100%{opacity:1;fill:var(--text)}}`,
    `@keyframes m${step}{0%,${at}%{opacity:1}${at}1%,100%{opacity:0}}`,
    `.t${step}{animation-name:t${step}}.m${step}{animation-name:m${step}}`,
  ].join('\n')
}).join('\n')

function draw({ label, prompt, cells, forwards, blocks }: Row, index: number): string {
  const y = TOP + index * LINE + Math.floor(index / 2) * 18
  const x = (column: number) => (LEFT + column * CHARACTER).toFixed(1)
  const masks = cells.map(({ step }, i) => {
    const [left, top] = [x(prompt.length + i + 0.08), (y - 13).toFixed(1)]
    return `<rect class="a m${step}" x="${left}" y="${top}" width="${(CHARACTER * 0.84).toFixed(1)}" height="17" rx="2"/>`
  })
  const texts = cells.map(
    ({ text, step }, i) => `<text class="a t${step}" x="${x(prompt.length + i)}" y="${y}">${escaped(text)}</text>`,
  )
  return [
    `<text class="label" x="12" y="${y}">${label}</text>`,
    `<text class="prompt" x="${x(0)}" y="${y}" textLength="${(prompt.length * CHARACTER).toFixed(1)}">${escaped(prompt)}</text>`,
    ...(blocks ? masks : []),
    ...texts,
    `<text class="a count t${forwards - 1}" x="${WIDTH - 12}" y="${y}">${forwards} forwards</text>`,
  ].join('\n')
}

const title = 'Text decoded one token per forward pass, and in drafts of several tokens that the model checks'
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${title}">
<title>${title}</title>
<style>
svg{--back:#ffffff;--text:#1f2328;--soft:#6e7781;--mask:#d0d7de;--fresh:#0969da}
@media (prefers-color-scheme:dark){svg{--back:#0d1117;--text:#e6edf3;--soft:#8b949e;--mask:#30363d;--fresh:#58a6ff}}
text{font:16px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--text);white-space:pre}
.label,.count{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--soft)}
.count{text-anchor:end}
.prompt{fill:var(--soft)}
rect{fill:var(--mask)}
.back{fill:var(--back)}
.a{animation-duration:${seconds.toFixed(2)}s;animation-iteration-count:infinite;animation-timing-function:step-end}
${keyframes}
@media (prefers-reduced-motion:reduce){.a{animation:none}rect.a{opacity:0}}
</style>
<rect class="back" width="${WIDTH}" height="${height}" rx="6"/>
${rows.map(draw).join('\n')}
</svg>
`
writeFileSync(new URL('../docs/images/unmasking.svg', import.meta.url), svg)
process.stdout.write(`docs/images/unmasking.svg: ${rows.map(({ forwards }) => forwards).join(', ')} forwards\n`)
