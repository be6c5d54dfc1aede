// Compiles constraints once however often they are asked for: clients send the same ones again and again, and several
// sequences of a request have the same.
import { remembering } from '../../core/remember.ts'
import { type Constraint, type ConstraintSource, compileConstraint } from './index.ts'
import type { Vocabulary } from './vocabulary.ts'

/** Constraints that are kept. */
const KEPT = 16

/** `compileConstraint` for one vocabulary. What was refused is refused again at once. */
export const createConstraintCompiler = (vocabulary: () => Vocabulary): ((source: ConstraintSource) => Constraint) =>
  remembering(
    (source) => compileConstraint(source, vocabulary()),
    (source) => JSON.stringify(source),
    KEPT,
  )
