// The OpenAPI document as a page that asks for nothing else: no scripts, fonts or styles from anywhere.
import type { JsonSchema, OpenApiDocument } from './openapi.ts'

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const html = (text: string) => text.replace(/[&<>"]/g, (character) => escapes[character]!)

/** HTML of the document. */
export function docsPage({ info, paths }: OpenApiDocument): string {
  const sections = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { summary, requestBody, responses }]) => {
      const schema = requestBody?.content['application/json'].schema
      const statuses = Object.entries(responses).map(
        ([status, response]) =>
          `<li><code>${status}</code> ${html(String((response as { description: string }).description))}</li>`,
      )
      return `<section id="${html(path)}"><h2><code>${method.toUpperCase()} ${html(path)}</code></h2>
<p>${html(summary)}</p>${schema ? fields(schema) : ''}
<details><summary>Statuses</summary><ul>${statuses.join('')}</ul></details></section>`
    }),
  )
  const links = Object.keys(paths).map((path) => `<li><a href="#${html(path)}">${html(path)}</a></li>`)
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${html(info.title)} API</title><style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 0 auto; padding: 1rem }
code { font: .9em ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-top: 1px solid #8884 }
section { margin-top: 2.5rem }
</style></head><body>
<h1>${html(info.title)} <small>${html(info.version)}</small></h1>
<p>${html(info.description)} The same as a document: <a href="/openapi.json">/openapi.json</a>.</p>
<nav><ul>${links.join('')}</ul></nav>
${sections.join('\n')}
</body></html>
`
}

function fields(schema: JsonSchema): string {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const required = schema.required?.includes(name) ? ' (required)' : ''
    return `<tr><td><code>${html(name)}</code>${required}</td><td>${html(typeName(field))}</td><td>${html(describe(field))}</td></tr>`
  })
  return `<table><tr><th>field</th><th>type</th><th></th></tr>${rows.join('')}</table>`
}

function typeName({ type, anyOf, oneOf, enum: values, const: value }: JsonSchema): string {
  if (values) return (values as unknown[]).map((item) => JSON.stringify(item)).join(', ')
  if (value !== undefined) return JSON.stringify(value)
  const branches = (anyOf ?? oneOf) as JsonSchema[] | undefined
  if (branches) return [...new Set(branches.map(typeName))].filter((name) => name !== 'null').join(' or ')
  return [type ?? 'any'].flat().join(' or ')
}

const describe = (field: JsonSchema): string =>
  field.description ?? field.anyOf?.map(({ description }) => description).find((text) => text !== undefined) ?? ''
