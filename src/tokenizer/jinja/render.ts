// Renders the tree of a template: its statements. Follows the code that jinja2 compiles templates to.

import { callValue, evaluate, evaluateArguments, FILTERED } from './evaluate.ts'
import { Scope } from './scope.ts'
import { TemplateError } from './text.ts'
import type { Expression, Signature, Statement, Target } from './tree.ts'
import {
  Callable,
  Dict,
  equals,
  type Given,
  isTrue,
  iterate,
  Namespace,
  or,
  Tuple,
  textOf,
  Undefined,
  type Value,
} from './values.ts'

/** Thrown by `break` and `continue` up to their loop, with what the iteration had written. */
class LoopControl extends Error {
  written = ''
  constructor(readonly tag: 'break' | 'continue') {
    super(`${tag} outside of a loop`)
  }
}

/** The text of a template. `globals` are its variables and functions. Throws TemplateError. */
export function render(template: readonly Statement[], globals: ReadonlyMap<string, Value>): string {
  const root = new Scope()
  for (const [name, value] of globals) root.set(name, value)
  return renderAll(template, new Scope(root))
}

function renderAll(statements: readonly Statement[], scope: Scope): string {
  let text = ''
  try {
    for (const statement of statements) text += renderOne(statement, scope)
  } catch (error) {
    if (error instanceof LoopControl) error.written = text + error.written
    throw error
  }
  return text
}

function renderOne(statement: Statement, scope: Scope): string {
  scope.count()
  switch (statement.kind) {
    case 'data':
      return statement.text
    case 'print':
      return textOf(evaluate(statement.value, scope))
    case 'if': {
      const branch = statement.branches.find(({ test }) => isTrue(evaluate(test, scope)))
      return renderAll(branch?.body ?? statement.otherwise, scope)
    }
    case 'for':
      return renderFor(statement, evaluate(statement.items, scope), scope, 1)
    case 'set':
      assign(statement.target, evaluate(statement.value, scope), scope)
      return ''
    case 'set block': {
      const text = renderAll(statement.body, new Scope(scope))
      assign(statement.target, statement.filter ? filterText(statement.filter, text, scope) : text, scope)
      return ''
    }
    case 'with': {
      const inner = new Scope(scope)
      for (const [target, value] of statement.values) assign(target, evaluate(value, scope), inner)
      return renderAll(statement.body, inner)
    }
    case 'filter block':
      return textOf(filterText(statement.filter, renderAll(statement.body, new Scope(scope)), scope))
    case 'macro':
      scope.set(statement.name, macro(statement.name, statement, scope))
      return ''
    case 'call block': {
      const { call } = statement
      const given = evaluateArguments(call.arguments, scope)
      given.named.set('caller', macro('caller', statement, scope))
      return textOf(callValue(evaluate(call.of, scope), given))
    }
    case 'generation':
      return renderAll(statement.body, new Scope(scope))
    case 'break':
    case 'continue':
      throw new LoopControl(statement.kind)
  }
}

function renderFor(loop: Statement & { kind: 'for' }, value: Value, outer: Scope, depth: number): string {
  const { target, test, body } = loop
  const items = iterate(value).filter((item) => {
    if (!test) return true
    const scope = new Scope(outer)
    assign(target, item, scope)
    return isTrue(evaluate(test, scope))
  })
  let text = ''
  const changed = { values: undefined as Value[] | undefined }
  for (const [index, item] of items.entries()) {
    outer.count()
    const scope = new Scope(outer)
    scope.set('loop', loopValue(loop, items, index, outer, depth, changed))
    assign(target, item, scope)
    try {
      text += renderAll(body, scope)
    } catch (error) {
      if (!(error instanceof LoopControl)) throw error
      text += error.written
      if (error.tag === 'break') break
    }
  }
  return items.length > 0 ? text : renderAll(loop.otherwise, new Scope(outer))
}

function loopValue(
  loop: Statement & { kind: 'for' },
  items: readonly Value[],
  index: number,
  outer: Scope,
  depth: number,
  changed: { values: Value[] | undefined },
): Value {
  const cycle = ({ positional }: Given): Value => {
    if (positional.length === 0) throw new TemplateError('no items for cycling given')
    return positional[index % positional.length]!
  }
  const hasChanged = ({ positional }: Given): Value => {
    const same = changed.values !== undefined && equals(changed.values, positional)
    changed.values = positional
    return !same
  }
  const again = ({ positional }: Given): Value => {
    if (!loop.recursive) throw new TemplateError("the loop is not 'recursive'")
    return renderFor(loop, positional[0] ?? new Undefined('loop() needs a list'), outer, depth + 1)
  }
  const attribute = (name: string): Value | undefined => {
    switch (name) {
      case 'index':
        return BigInt(index + 1)
      case 'index0':
        return BigInt(index)
      case 'revindex':
        return BigInt(items.length - index)
      case 'revindex0':
        return BigInt(items.length - index - 1)
      case 'first':
        return index === 0
      case 'last':
        return index === items.length - 1
      case 'length':
        return BigInt(items.length)
      case 'depth':
        return BigInt(depth)
      case 'depth0':
        return BigInt(depth - 1)
      case 'previtem':
        return or(items[index - 1], new Undefined('there is no previous item'))
      case 'nextitem':
        return or(items[index + 1], new Undefined('there is no next item'))
      case 'cycle':
        return new Callable('cycle', cycle)
      case 'changed':
        return new Callable('changed', hasChanged)
    }
    return undefined
  }
  return new Callable('loop', again, attribute)
}

function assign(target: Target, value: Value, scope: Scope): void {
  if (target.kind === 'name') scope.set(target.name, value)
  else if (target.kind === 'namespace') {
    const namespace = scope.get(target.name)
    if (!(namespace instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object')
    namespace.attributes.set(target.attribute, value)
  } else {
    const items = iterate(value)
    if (items.length !== target.items.length) {
      const problem = items.length > target.items.length ? 'too many' : 'not enough'
      throw new TemplateError(`${problem} values to unpack (expected ${target.items.length})`)
    }
    for (const [i, part] of target.items.entries()) assign(part, items[i]!, scope)
  }
}

function filterText(filter: Expression, text: string, scope: Scope): Value {
  const inner = new Scope(scope)
  inner.set(FILTERED, text)
  return evaluate(filter, inner)
}

function macro(name: string, signature: Signature, scope: Scope): Callable {
  const { parameters, body, usesVarargs, usesKwargs } = signature
  const call = ({ positional, named }: Given): Value => {
    const inner = new Scope(scope)
    const rest = new Map(named)
    const caller = rest.get('caller')
    rest.delete('caller')
    inner.set('caller', caller ?? new Undefined('No caller defined'))
    for (const [i, parameter] of parameters.entries()) {
      let value =
        i < positional.length ? positional[i] : parameter.name === 'caller' ? caller : rest.get(parameter.name)
      rest.delete(parameter.name)
      if (value === undefined && parameter.value) value = evaluate(parameter.value, inner)
      inner.set(parameter.name, or(value, new Undefined(`parameter '${parameter.name}' was not provided`)))
    }
    const extra = positional.slice(parameters.length)
    if (usesVarargs) inner.set('varargs', new Tuple(extra))
    else if (extra.length > 0)
      throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`)
    const [unknown] = rest.keys()
    if (usesKwargs) inner.set('kwargs', new Dict(rest))
    else if (unknown !== undefined) throw new TemplateError(`macro '${name}' takes no keyword argument '${unknown}'`)
    return renderAll(body, inner)
  }
  const attribute = (asked: string): Value | undefined => {
    if (asked === 'name') return name
    return asked === 'arguments' ? new Tuple(parameters.map((parameter) => parameter.name)) : undefined
  }
  return new Callable(name, call, attribute, 'Macro')
}
