// The operations by name: whatever reads or lists programs finds them here. Knows no particular operation; `ops/index.ts` has
// all of them.
import type { Operation } from './tensor.ts'

const defined = new Map<string, Operation<never>>()

/** The operations that are defined so far. */
export const operations: ReadonlyMap<string, Operation<never>> = defined

export function defineOperation<A>(operation: Operation<A>): Operation<A> {
  if (defined.has(operation.name)) throw new Error(`there are two operations ${operation.name}`)
  defined.set(operation.name, operation as unknown as Operation<never>)
  return operation
}
