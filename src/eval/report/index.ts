// Writes the report of a run: report.json (all numbers), report.md and report.html (the same, to be read).
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeTextAtomically } from '../../checkpoint/file.ts'
import { renderHtml } from './html.ts'
import { renderMarkdown } from './markdown.ts'
import type { ReportData } from './types.ts'

export type * from './types.ts'

export interface ReportFiles {
  json: string
  markdown: string
  html: string
}

/** Writes the three files into `dir`, which is made where it does not exist, and returns their paths. */
export async function writeReport(dir: string, data: ReportData): Promise<ReportFiles> {
  const files: ReportFiles = {
    json: join(dir, 'report.json'),
    markdown: join(dir, 'report.md'),
    html: join(dir, 'report.html'),
  }
  await mkdir(dir, { recursive: true })
  await writeTextAtomically(files.json, `${JSON.stringify(data, null, 2)}\n`)
  await writeTextAtomically(files.markdown, renderMarkdown(data))
  await writeTextAtomically(files.html, renderHtml(data))
  return files
}
