// The tree of a template, between the parser and the renderer.

export interface Arguments {
  positional: Expression[]
  named: [string, Expression][]
  /** `*list` and `**dict`. */
  spread?: Expression
  spreadNamed?: Expression
}

export type Expression =
  | { kind: 'constant'; value: string | number | bigint | boolean | null }
  | { kind: 'name'; name: string }
  | { kind: 'list' | 'tuple'; items: Expression[] }
  | { kind: 'dict'; items: [Expression, Expression][] }
  | { kind: 'attribute'; of: Expression; name: string }
  | { kind: 'item'; of: Expression; key: Expression }
  | { kind: 'slice'; of: Expression; bounds: (Expression | undefined)[] }
  | { kind: 'call'; of: Expression; arguments: Arguments }
  | { kind: 'filter'; of: Expression | undefined; name: string; arguments: Arguments }
  | { kind: 'test'; of: Expression; name: string; arguments: Arguments }
  | { kind: 'not' | 'negative' | 'positive'; of: Expression }
  | { kind: 'and' | 'or'; left: Expression; right: Expression }
  | { kind: 'binary'; operator: string; left: Expression; right: Expression }
  | { kind: 'concat'; items: Expression[] }
  | { kind: 'compare'; first: Expression; rest: [operator: string, Expression][] }
  | { kind: 'condition'; test: Expression; yes: Expression; no: Expression | undefined }

export type Target =
  | { kind: 'name'; name: string }
  | { kind: 'tuple'; items: Target[] }
  | { kind: 'namespace'; name: string; attribute: string }

export interface Signature {
  parameters: { name: string; value: Expression | undefined }[]
  body: Statement[]
  /** Whether the body names `varargs` and `kwargs`, which decides whether others than its parameters are accepted. */
  usesVarargs: boolean
  usesKwargs: boolean
}

export type Statement =
  | { kind: 'data'; text: string }
  | { kind: 'print'; value: Expression }
  | { kind: 'if'; branches: { test: Expression; body: Statement[] }[]; otherwise: Statement[] }
  | ({ kind: 'for'; target: Target; items: Expression } & {
      test: Expression | undefined
      recursive: boolean
      body: Statement[]
      otherwise: Statement[]
    })
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'set block'; target: Target; filter: Expression | undefined; body: Statement[] }
  | { kind: 'with'; values: [Target, Expression][]; body: Statement[] }
  | { kind: 'filter block'; filter: Expression; body: Statement[] }
  | ({ kind: 'macro'; name: string } & Signature)
  | ({ kind: 'call block'; call: Expression & { kind: 'call' } } & Signature)
  | { kind: 'generation'; body: Statement[] }
  | { kind: 'break' | 'continue' }
