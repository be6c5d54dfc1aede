// JSON schemas (draft 2020-12) as grammars of the JSON texts that are valid against them.
//
// Every text of the grammar is valid; not every valid document is offered. Properties come in the order of the schema, and
// only those that it names unless `additionalProperties` asks for more; numbers and formats keep to common forms.
// A keyword that would have to restrict the text and is not supported is an error that names its path.

import { choice, type Expression, type Grammar, nothing, rule } from '../expression.ts'
import { jsonRules } from '../json.ts'
import { type Budget, LIMITS, tooLarge } from '../limits.ts'
import { createAlternatives } from './alternatives.ts'
import { checkJson, type Json, open } from './source.ts'
import { createValues } from './values.ts'

/** Throws UserError naming the path of what is wrong, unsupported or too large. */
export function schemaGrammar(source: unknown, budget: Budget): Grammar {
  const root = checkJson(source)
  const rules = new Map(jsonRules)
  /** Rules by the schema's text: equal schemas share one, and recursion ends. */
  const names = new Map<string, string>()
  const pending: { name: string; schema: Json; path: string }[] = []
  const { resolve, of: alternatives } = createAlternatives(root, spend)
  const expressionOf = createValues({ compile, shared, alternatives })

  function spend(work: number): void {
    budget.work -= work
    if (budget.work < 0) tooLarge('the JSON schema combines too many parts')
  }

  /** The rule of a schema. */
  function compile(schema: Json, path: string): Expression {
    if (schema === true) return rule('value')
    if (schema === false) return nothing
    const { keywords } = open(schema, path)
    const { $ref: reference } = keywords
    if (reference !== undefined && Object.keys(keywords).length === 1) {
      const target = resolve(reference, `${path}/$ref`)
      // A definition's rule carries its path; what it is called in messages.
      return named(target.schema, target.path)
    }
    return named(schema, path)
  }

  function named(schema: Json, path: string): Expression {
    if (schema === true) return rule('value')
    if (schema === false) return nothing
    const key = JSON.stringify(schema)
    let name = names.get(key)
    if (name === undefined) {
      name = rules.has(path) ? `${path} (${rules.size})` : path
      names.set(key, name)
      if (rules.size >= LIMITS.rules) tooLarge(`the JSON schema has more than ${LIMITS.rules} parts`)
      rules.set(name, nothing)
      // Later: long chains of references would exhaust the stack.
      pending.push({ name, schema, path })
    }
    return rule(name)
  }

  /** A rule for what is used in more than one place. */
  function shared(expression: Expression, name: string): Expression {
    let free = name
    for (let i = 2; rules.has(free); i++) free = `${name} ${i}`
    if (rules.size >= LIMITS.rules) tooLarge(`the JSON schema has more than ${LIMITS.rules} parts`)
    rules.set(free, expression)
    return rule(free)
  }

  const whole = compile(root, '#')
  for (let next = pending.pop(); next !== undefined; next = pending.pop())
    rules.set(next.name, choice(...alternatives(next.schema, next.path).map(expressionOf)))
  return { root: whole, rules }
}
