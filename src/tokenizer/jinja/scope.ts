// The names that a part of a template sees, and how much work the template may do.
import { TemplateError } from './text.ts'
import type { Value } from './values.ts'

/** More statements and expressions than this, and the template is taken for one without an end. */
const MAX_STEPS = 2_000_000

export class Scope {
  readonly #names = new Map<string, Value>()
  /** Shared by all scopes of a template. */
  readonly #work: { steps: number }
  constructor(readonly parent?: Scope) {
    this.#work = parent ? parent.#work : { steps: 0 }
  }
  get(name: string): Value | undefined {
    const value = this.#names.get(name)
    return value === undefined ? this.parent?.get(name) : value
  }
  set(name: string, value: Value): void {
    this.#names.set(name, value)
  }
  /** Counts a statement or an expression. Throws TemplateError where there have been too many. */
  count(): void {
    if (++this.#work.steps > MAX_STEPS)
      throw new TemplateError('it does more than a chat template should; does it end?')
  }
}
