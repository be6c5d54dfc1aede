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
  return `<table><tr><th>field</th><th>type</th><th></th></tr>${rows([schema], '').join('')}</table>`
}

/** The rows of the fields that an object of any of these forms has, each followed by those of the fields inside it. */
function rows(forms: readonly JsonSchema[], prefix: string): string[] {
  const names = new Set(forms.flatMap(({ properties }) => Object.keys(properties ?? {})))
  return [...names].flatMap((key) => {
    const field = { anyOf: forms.map(({ properties }) => properties?.[key]).filter((each) => each !== undefined) }
    const requiring = forms.filter(({ required }) => required?.includes(key)).length
    const required = requiring === 0 ? '' : requiring === forms.length ? ' (required)' : ' (required in some forms)'
    const name = prefix + key
    const row = `<tr><td><code>${html(name)}</code>${required}</td><td>${html(typeNames(field).join(' or '))}</td><td>${html(describe(field) ?? '')}</td></tr>`
    return [row, ...[...objectsIn(field, name)].flatMap(([inside, objects]) => rows(objects, `${inside}.`))]
  })
}

/** The forms of the objects that a field may hold, by its name, or by `name[]` where they stand in a list. */
function objectsIn(schema: JsonSchema, name: string, found = new Map<string, JsonSchema[]>()): typeof found {
  for (const branch of branchesOf(schema)) objectsIn(branch, name, found)
  if (schema.items) objectsIn(schema.items, `${name}[]`, found)
  if (schema.properties) found.set(name, [...(found.get(name) ?? []), schema])
  return found
}

const branchesOf = ({ anyOf, oneOf }: JsonSchema): JsonSchema[] => anyOf ?? oneOf ?? []

/** What a field may be, each once. */
function typeNames(schema: JsonSchema): string[] {
  const branches = branchesOf(schema)
  const { type, enum: values, const: value } = schema
  const names =
    branches.length > 0
      ? branches.flatMap(typeNames)
      : values
        ? (values as unknown[]).map((item) => JSON.stringify(item))
        : value !== undefined
          ? [JSON.stringify(value)]
          : [type ?? 'any'].flat()
  return [...new Set(names)].filter((name) => name !== 'null')
}

/** The first description of a field or one of its forms. */
const describe = (field: JsonSchema): string | undefined =>
  field.description ??
  branchesOf(field)
    .map(describe)
    .find((text) => text !== undefined)
