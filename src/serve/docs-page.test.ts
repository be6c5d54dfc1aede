import { parseHTML } from 'linkedom'
import { describe, expect, it } from 'vitest'
import { docsPage } from './docs-page.ts'
import { openApiDocument } from './openapi.ts'

const { document } = parseHTML(docsPage(openApiDocument()))

/** The rows of a route: name, type, description. */
const rowsOf = (path: string): string[][] =>
  [...document.getElementById(path)!.querySelectorAll('tr')]
    .slice(1)
    .map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))

describe('the page of the API', () => {
  it('shows fields inside of fields, those of lists and of each form too', () => {
    const rows = new Map(rowsOf('/v1/chat/completions').map(([name, ...rest]) => [name!, rest]))
    expect(rows.get('unmask.strategy')).toEqual([expect.stringContaining('"fixed"'), expect.stringContaining('rule')])
    expect(rows.get('stream_options.include_usage')).toEqual(['boolean', ''])
    expect(rows.get('messages[].role (required)')![0]).toBe(
      '"system" or "developer" or "user" or "assistant" or "tool"',
    )
    expect(rows.has('messages[].tool_call_id (required in some forms)')).toBe(true)
    expect(rows.get('tools[].function.name (required)')).toEqual(['string', ''])
    expect(rows.get('response_format.json_schema.schema')).toEqual(['object', ''])
    expect(rowsOf('/v1/infill').map(([name]) => name)).toContain('parts[].mask (required)')
  })

  it('names a field once', () => {
    for (const { id } of document.querySelectorAll('section')) {
      const names = rowsOf(id).map(([name]) => name!.replace(/ .*/, ''))
      expect(names).toEqual([...new Set(names)])
    }
  })
})
