// Compiles constraints once however often they are asked for: clients send the same ones again and again, and several
// sequences of a request have the same.
import { UserError } from '../../core/types.ts'
import { type Constraint, type ConstraintSource, compileConstraint } from './index.ts'
import type { Vocabulary } from './vocabulary.ts'

/** Constraints that are kept. */
const KEPT = 16

/** `compileConstraint` for one vocabulary, which is made when it is first needed. What was refused is refused again at once. */
export function createConstraintCompiler(createVocabulary: () => Vocabulary): (source: ConstraintSource) => Constraint {
  let vocabulary: Vocabulary | undefined
  const known = new Map<string, Constraint | UserError>()

  function compile(source: ConstraintSource): Constraint | UserError {
    vocabulary ??= createVocabulary()
    try {
      return compileConstraint(source, vocabulary)
    } catch (error) {
      if (error instanceof UserError) return error
      throw error
    }
  }

  return (source) => {
    const key = JSON.stringify(source)
    const result = known.get(key) ?? compile(source)
    // The last used are kept.
    known.delete(key)
    known.set(key, result)
    if (known.size > KEPT) known.delete(known.keys().next().value as string)
    if (result instanceof UserError) throw result
    return result
  }
}
