// Compiles constraints once however often they are asked for: clients send the same ones again and again, and several
// sequences of a request have the same.
import { remembering } from '../../core/remember.ts'
import { type Constraint, type ConstraintSource, compileConstraint } from './index.ts'
import type { Vocabulary } from './vocabulary.ts'

/** Constraints that are kept. */
const KEPT = 16

/** `compileConstraint` for one vocabulary, which is made when it is first needed. What was refused is refused again at once. */
export function createConstraintCompiler(createVocabulary: () => Vocabulary): (source: ConstraintSource) => Constraint {
  let vocabulary: Vocabulary | undefined
  const compile = (source: ConstraintSource): Constraint => {
    vocabulary ??= createVocabulary()
    return compileConstraint(source, vocabulary)
  }
  return remembering(compile, (source) => JSON.stringify(source), KEPT)
}
