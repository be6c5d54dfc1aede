import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile, TemplateError } from './index.ts'
import { strftime } from './strftime.ts'

interface Line {
  variables?: Record<string, unknown>
  name?: string
  template: string
  expected?: string
  error?: string
  date?: string
  format?: string
}

/** What jinja2 renders; made by scripts/check_templates.py. */
const read = (file: URL | string): Line[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const [{ variables: common }, ...lines] = read(new URL('../fixtures/templates.jsonl', import.meta.url))
const cases = lines.filter(({ name }) => name !== undefined)
const dates = lines.filter(({ date }) => date !== undefined)

const render = (template: string, variables: Record<string, unknown> = {}) => compile(template)(variables)

describe('as jinja2 does', () => {
  test.each(cases)('$name', ({ template, variables, expected, error }) => {
    const run = () => render(template, { ...common, ...variables })
    if (error === undefined) expect(run()).toBe(expected)
    else expect(run).toThrow(TemplateError)
  })

  const { FIELD_TEMPLATES } = process.env
  test.runIf(FIELD_TEMPLATES)('templates in the field', () => {
    const [{ variables: shared }, ...found] = read(FIELD_TEMPLATES!)
    for (const { name, template, variables, expected, error } of found) {
      let text: string | undefined
      try {
        text = render(template, { ...shared, ...variables })
      } catch (thrown) {
        expect(thrown, name).toBeInstanceOf(TemplateError)
      }
      expect([name, text]).toEqual([name, error === undefined ? expected : undefined])
    }
  })

  test.each(dates)('$format at $date', ({ date, format, expected }) => {
    expect(strftime(format!, new Date(date!))).toBe(expected)
  })

  test('what a template raises is what it says', () => {
    const said = (template: string) => {
      try {
        return render(template, common)
      } catch (error) {
        return (error as Error).message
      }
    }
    expect(said("{{ raise_exception('Roles must alternate') }}")).toBe('Roles must alternate')
    expect(said('{{ missing.deeper }}')).toBe("'missing' is undefined")
    expect(said('one\ntwo {{ 1 + }}')).toMatch(/^line 2: /)
  })
})

describe('hostile templates', () => {
  test.each([
    ['a range', '{{ range(1000000000) }}'],
    ['a loop without end', '{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}'],
    ['a macro that calls itself', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}'],
    ['a long text', "{{ 'x' * 10 ** 12 }}"],
    ['a long list', '{{ [1] * 10 ** 12 }}'],
    [
      'a doubled text',
      "{% set ns = namespace(t='xxxxxxxx') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    ],
    ['a large power', '{{ 2 ** 100000 }}'],
    [
      'a large product',
      '{% set ns = namespace(n=7) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}',
    ],
    ['a wide field', "{{ '%999999999s' % 'x' }}{{ 'x'.center(10 ** 12) }}"],
    ['deep nesting', `${'{% if true %}'.repeat(5000)}${'{% endif %}'.repeat(5000)}`],
    ['deep brackets', `{{ ${'['.repeat(5000)}${']'.repeat(5000)} }}`],
    ['many signs', `{{ ${'-'.repeat(100_000)}1 }}`],
  ])('%s is refused', (_, template) => {
    expect(() => render(template)).toThrow(TemplateError)
  })

  test('no access to what JavaScript has', () => {
    for (const name of ['constructor', '__proto__', 'toString', 'valueOf', 'hasOwnProperty']) {
      expect(render(`{{ x.${name} is defined }}{{ x['${name}'] is defined }}`, { x: {} })).toBe('FalseFalse')
      expect(render(`{{ '' is defined }}{{ ''.${name} is defined }}{{ [].${name} is defined }}`)).toBe('TrueFalseFalse')
      expect(render(`{{ ${name} is defined }}`)).toBe('False')
      expect(() => render(`{{ 1 | ${name} }}`)).toThrow(TemplateError)
      expect(() => render(`{{ 1 is ${name} }}`)).toThrow(TemplateError)
    }
  })

  test('any text is a template or a TemplateError', () => {
    const pieces = cases.flatMap(({ template }) => template.split(/(?<=[{}%'"()[\]| ])/))
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string()), { maxLength: 30 }), (parts) => {
        try {
          expect(typeof render(parts.join(''), common)).toBe('string')
        } catch (error) {
          expect(error).toBeInstanceOf(TemplateError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})
