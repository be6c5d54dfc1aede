// Constrained decoding: a regular expression, a JSON schema or a grammar that the text matches in whatever order its tokens
// are decided. Uses no Node API.
import { UserError } from '../../core/types.ts'
import type { Grammar } from './expression.ts'
import { parseGrammar } from './gbnf.ts'
import { liftToTokens, type TokenMachine } from './lift.ts'
import { type Budget, createBudget, LIMITS } from './limits.ts'
import { createMachine, product } from './machine.ts'
import { compile, type Program } from './network.ts'
import { parseRegex } from './regex.ts'
import { schemaGrammar } from './schema/index.ts'
import { createTracker, type Tracker } from './tracker.ts'
import type { Vocabulary } from './vocabulary.ts'

export type { Program } from './network.ts'
export type { Tracker } from './tracker.ts'
export { createVocabulary, type Vocabulary, type VocabularyOptions } from './vocabulary.ts'

/** What a text must match, as a whole. */
export type ConstraintSource =
  /** As ECMAScript's RegExp with the flag `u` and anchored at both ends; see docs/constraints.md for what is left out. */
  | { type: 'regex'; pattern: string }
  /** JSON that is valid against the schema. */
  | { type: 'json_schema'; schema: unknown }
  /** Any JSON object. */
  | { type: 'json_object' }
  /** GBNF, the grammars of llama.cpp; the rule `root` is the text. */
  | { type: 'grammar'; grammar: string }

export interface Constraint {
  /**
   * Follows one text of at most `maxTokens` tokens, its EOS included if it has one. Throws UserError where no text of the
   * constraint is known to be so short.
   */
  begin(options: { maxTokens: number }): Tracker
}

/**
 * Compiles a constraint to what every vocabulary shares: plain values, so that it may be done in another thread. What it costs
 * is bounded whatever the source. Throws UserError for a source that is wrong, not supported or too large.
 */
export function compileProgram(source: ConstraintSource): Program {
  const budget = createBudget(LIMITS.compilation)
  return compile(parse(source, budget), product, budget)
}

/**
 * A compiled constraint for a model's vocabulary. The automaton is made while texts are followed, and shared by all of them.
 * Throws UserError where no text satisfies it.
 */
export function constraintOf(program: Program, vocabulary: Vocabulary): Constraint {
  if (vocabulary.eosTokenIds.length === 0)
    throw new UserError('constraint: the model has no EOS token, so a text cannot end before its last position')
  let current: { machine: TokenMachine; worn(): boolean } | undefined

  function create() {
    const machine = createMachine(program, vocabulary.single)
    return { machine: liftToTokens(machine, vocabulary), worn: machine.worn }
  }
  current = create()
  return {
    begin({ maxTokens }) {
      // Texts that are under way keep the automaton that they began with.
      if (current === undefined || current.worn()) current = create()
      return createTracker(current.machine, maxTokens)
    },
  }
}

/** Both steps: see `compileProgram` and `constraintOf`. */
export const compileConstraint = (source: ConstraintSource, vocabulary: Vocabulary): Constraint =>
  constraintOf(compileProgram(source), vocabulary)

function parse(source: ConstraintSource, budget: Budget): Grammar {
  switch (source.type) {
    case 'regex':
      return { root: parseRegex(source.pattern, { match: 'whole' }), rules: new Map() }
    case 'json_schema':
      return schemaGrammar(source.schema, budget)
    case 'json_object':
      return schemaGrammar({ type: 'object' }, budget)
    case 'grammar':
      return parseGrammar(source.grammar)
  }
}
