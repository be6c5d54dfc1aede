// How large a constraint may become. Constraints come from clients: everything that grows with one is bounded here.
import { UserError } from '../../core/types.ts'

export const LIMITS = {
  /** Characters of a regular expression, a grammar or a schema as JSON. */
  source: 100_000,
  /** Nesting of groups, schemas or brackets in a source. */
  nesting: 100,
  /** Lookaheads of a regular expression: what follows one may have to be written out twice. */
  lookaheads: 8,
  /** Rules of a grammar; a schema has one per definition that is referred to. */
  rules: 5_000,
  /** Largest bound of a repetition. */
  repeat: 1_000_000,
  /** Nodes of the compiled automaton. */
  nodes: 200_000,
  /** States of a product of two regular languages. */
  product: 20_000,
  /** Open rules and repetitions of one place in the text. */
  depth: 256,
  /** Ways in which a text so far can be read, of one state; and places in the automaton that are looked at to find them. */
  readings: 8_000,
  places: 64_000,
  /** States of a running automaton. */
  states: 50_000,
  /** Elementary steps of a compilation, in which others wait: some tenths of a second. */
  compilation: 2_000_000,
  /** Elementary steps in which a running automaton makes its states: some seconds. */
  work: 4_000_000,
  /** Bytes of cached token sets. */
  cache: 64 << 20,
} as const

/** Steps left, of a compilation or a machine. */
export interface Budget {
  work: number
}

export const createBudget = (work: number): Budget => ({ work })

export function tooLarge(what: string): never {
  throw new UserError(`constraint: ${what}; make it smaller, for instance with lower bounds of repetitions`)
}
