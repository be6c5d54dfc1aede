// Constrained decoding: a regular expression, a JSON schema or a grammar that the text matches in whatever order its tokens
// are decided. Uses no Node API.
import { UserError } from '../../core/types.ts'
import type { Grammar } from './expression.ts'
import { parseGrammar } from './gbnf.ts'
import { liftToTokens, type TokenMachine } from './lift.ts'
import { type Budget, createBudget, LIMITS } from './limits.ts'
import { createMachine, product, shortest, type Ways } from './machine.ts'
import { compile, type Program } from './network.ts'
import { parseRegex } from './regex.ts'
import { schemaGrammar } from './schema/index.ts'
import { createTracker, type Tracker } from './tracker.ts'
import { inTurns, type Turns } from './turns.ts'
import type { Vocabulary } from './vocabulary.ts'

export type { Tracker } from './tracker.ts'
export type { Turn, Turns } from './turns.ts'
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
  /** The same for one text, which is followed in turns from its beginning on. Rejects with UserError as `begin` throws it. */
  inTurns(turns: Turns): Promise<Constraint>
}

/** What a source is compiled to: plain arrays. */
export interface CompiledConstraint {
  program: Program
  ways: Ways
}

/**
 * Compiles a constraint to plain values, so that it may be done in another thread. `usable[byte]` is 1 for bytes that are tokens
 * of their own (`Vocabulary.single`). What it costs is bounded whatever the source. Throws UserError for a source that is wrong,
 * not supported or too large.
 */
export function compileSource(source: ConstraintSource, usable: Uint8Array): CompiledConstraint {
  const budget = createBudget(LIMITS.compilation)
  const program = compile(parse(source, budget), product, budget)
  return { program, ways: shortest(program, usable) }
}

/**
 * A compiled constraint for a model's vocabulary. The automaton is made while texts are followed, and shared by all of them.
 * Throws UserError where no text satisfies it.
 */
export function constraintOf({ program, ways }: CompiledConstraint, vocabulary: Vocabulary): Constraint {
  if (vocabulary.eosTokenIds.length === 0)
    throw new UserError('constraint: the model has no EOS token, so a text cannot end before its last position')

  function create() {
    const machine = createMachine(program, ways)
    return { machine: liftToTokens(machine, vocabulary), worn: machine.worn }
  }
  let current = create()
  /** What does not depend on how long a text may be is refused again at once. */
  let refused: UserError | undefined
  /** Texts that are under way keep the automaton that they began with. */
  function fresh(): TokenMachine {
    if (refused) throw refused
    if (current.worn()) current = create()
    return current.machine
  }
  function start(machine: TokenMachine): void {
    try {
      machine.start()
    } catch (error) {
      if (error instanceof UserError) refused = error
      throw error
    }
  }
  const constraint: Constraint = {
    begin({ maxTokens }) {
      const machine = fresh()
      start(machine)
      return createTracker(machine, maxTokens)
    },
    async inTurns(turns) {
      const machine = fresh()
      const toBegin = () => {
        start(machine)
        machine.distance(machine.start())
      }
      await inTurns(toBegin, turns)
      return { ...constraint, begin: ({ maxTokens }) => createTracker(machine, maxTokens, turns) }
    },
  }
  return constraint
}

/** Both steps: see `compileSource` and `constraintOf`. */
export const compileConstraint = (source: ConstraintSource, vocabulary: Vocabulary): Constraint =>
  constraintOf(compileSource(source, vocabulary.single), vocabulary)

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
