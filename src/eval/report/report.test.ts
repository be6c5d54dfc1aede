import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { parseHTML } from 'linkedom'
import { describe, expect, it } from 'vitest'
import { sampleReport } from '../../../test/report/sample.ts'
import { provenance } from '../../account/provenance.ts'
import { tokenEfficiency, tokensToReach } from './efficiency.ts'
import { drawFigures, placeLabels } from './figures.ts'
import { renderHtml } from './html.ts'
import { writeReport } from './index.ts'
import { renderMarkdown } from './markdown.ts'
import { tables } from './tables.ts'
import type { ReportData } from './types.ts'

const bare: ReportData = {
  ...sampleReport(),
  training: undefined,
  ar: undefined,
  diffusion: undefined,
  tasks: [],
  sweep: [],
  tokenEfficiency: undefined,
  samples: [],
}

describe('writeReport', () => {
  it('writes JSON, Markdown and HTML', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'unmask-report-'))
    try {
      const data = sampleReport()
      const files = await writeReport(join(folder, 'a', 'b'), data)
      expect(JSON.parse(await readFile(files.json, 'utf8'))).toEqual(JSON.parse(JSON.stringify(data)))
      expect(await readFile(files.markdown, 'utf8')).toBe(renderMarkdown(data))
      expect(await readFile(files.html, 'utf8')).toBe(renderHtml(data))
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})

describe('labels of points', () => {
  it('do not meet those at the same height', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 480, noNaN: true }), { minLength: 1, maxLength: 4 }),
        fc.constantFrom('0.9', '0.95'),
        (places, text) => {
          const points = places.sort((a, b) => a - b).map((x) => ({ x, text }))
          const placed = placeLabels(points)
          for (const [i, a] of placed.entries())
            for (const [j, b] of placed.entries())
              if (i < j && a.dy === b.dy)
                expect(points[j]!.x - points[i]!.x).toBeGreaterThanOrEqual(10 * text.length - 1e-9)
        },
      ),
    )
  })
})

describe('the page', () => {
  const page = renderHtml(sampleReport())
  const { document } = parseHTML(page)

  it('asks nothing of the network and runs nothing', () => {
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|url\(/)
    expect(
      [...page.matchAll(/https?:\/\/[^\s"'<]+/g)].map(String).filter((url) => !url.includes('www.w3.org')),
    ).toEqual([])
  })

  it('has the figures with axes and units', () => {
    expect([...document.querySelectorAll('figure')].map((figure) => figure.id)).toEqual([
      'loss',
      'nelbo',
      'sweep',
      'efficiency',
      'speed',
    ])
    for (const id of ['loss', 'nelbo', 'efficiency']) {
      expect(document.querySelector(`#${id}`)?.textContent).toContain('training tokens')
    }
    expect(document.querySelector('#nelbo')?.textContent).toContain('bits per byte')
  })

  it('colours by block size in both colour schemes', () => {
    const strokes = new Set([...page.matchAll(/(?:stroke|fill)="(var\(--o\d\))"/g)].map((match) => match[1]))
    expect(strokes.size).toBe(7)
    for (const variable of ['--o0', '--o7', '--ar', '--diffusion', '--random']) {
      expect(page.match(new RegExp(`${variable}:#`, 'g')), variable).toHaveLength(2)
    }
  })

  it('has the tables', () => {
    expect([...document.querySelectorAll('main > h2')].map((heading) => heading.textContent)).toEqual([
      'AR against diffusion',
      'Score by task',
      'Thresholds',
      'Tokens for the same NELBO',
      'Training',
      'Samples',
      'Run',
    ])
  })

  it('shows foreign text as text', () => {
    expect(page).toContain('ab\nc&#60;script&#62;')
    expect(document.querySelector('h1')?.textContent).toBe('tiny <model> & its blocks')
  })

  it('leaves out what was not measured', () => {
    const { document: small } = parseHTML(renderHtml(bare))
    expect(small.querySelectorAll('figure')).toHaveLength(0)
    expect([...small.querySelectorAll('main > h2')].map((heading) => heading.textContent)).toEqual(['Run'])
  })
})

describe('Markdown', () => {
  it('has the same tables', () => {
    const text = renderMarkdown(sampleReport())
    for (const { title } of tables(sampleReport())) expect(text).toContain(`## ${title}`)
    expect(text).toContain(
      '| diffusion (block 8, threshold 0.9) | 1.310 | 0.900 | 93.0 % (90.0–95.0) | 4.30 | 740.0 | 780 |',
    )
  })

  it('escapes foreign text', () => {
    const text = renderMarkdown(sampleReport())
    expect(text).toContain('# tiny \\<model\\> & its blocks')
    expect(text).toContain('`` sort(`<b>\\|cab)= ``')
  })
})

describe('figures', () => {
  it('stand without an AR base, tasks or random weights', () => {
    const { tokenEfficiency: _, ...data } = sampleReport()
    expect(drawFigures({ ...data, tokenEfficiency: undefined, ar: undefined, sweep: [] }).map(({ id }) => id)).toEqual([
      'loss',
      'nelbo',
    ])
  })

  it('give a block size the same colour, and a legend the block sizes that its figure shows', () => {
    const data = sampleReport()
    // No evaluation falls into the first stage.
    const { evaluations } = data.training!
    data.training!.evaluations = evaluations.filter(({ blockSize }) => blockSize !== 1)
    const [loss, nelbo] = drawFigures(data)
    const labels = ['block 4', 'block 8', 'block 16', 'block 32', 'block 64', 'block 128']
    expect(loss!.legend.map(({ label }) => label)).toEqual(['block 1', ...labels])
    expect(nelbo!.legend.filter(({ label }) => label !== 'AR base')).toEqual(loss!.legend.slice(1))
  })

  it('pass over losses that are not finite', () => {
    const data = sampleReport()
    data.training!.points[3]!.loss = Number.NaN
    expect(drawFigures(data)[0]!.svg).not.toContain('NaN')
  })
})

describe('token efficiency', () => {
  const curve = (...nelbos: number[]) =>
    nelbos.map((nelbo, index) => ({ step: index, tokens: index * 100, blockSize: 8, nelbo, bitsPerByte: nelbo }))

  it('interpolates between evaluations', () => {
    expect(tokensToReach(curve(4, 2, 1), 3)).toBe(50)
    expect(tokensToReach(curve(4, 2, 1), 1)).toBe(200)
    expect(tokensToReach(curve(4, 2, 1), 0.5)).toBeUndefined()
    expect(tokensToReach(curve(4), 5)).toBe(0)
  })

  it('compares at the final NELBO of the run from base weights', () => {
    expect(tokenEfficiency(curve(4, 2), curve(6, 4, 3, 2, 1))).toMatchObject({
      target: 2,
      tokensFromBase: 100,
      tokensFromRandom: 300,
    })
  })
})

describe('provenance', () => {
  it('has no host name and no path', () => {
    const { command, machine, versions } = provenance('unmask convert --model /home/me/base', 2)
    expect(command).toBe('unmask convert --model base')
    expect(Object.keys(machine).sort()).toEqual(['cores', 'cpu', 'memoryBytes', 'platform', 'threads'])
    expect(Object.keys(versions).sort()).toEqual(['node', 'onnxruntime-node', 'unmask'])
  })
})
