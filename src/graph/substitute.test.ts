import { expect, it } from 'vitest'
import { add, mul } from './ops/elementwise.ts'
import { input } from './ops/input.ts'
import { topologicalOrder } from './program.ts'
import { substitute } from './substitute.ts'

const inputNames = (outputs: Parameters<typeof topologicalOrder>[0]) =>
  topologicalOrder(outputs).flatMap(({ operation, attributes }) =>
    operation.name === 'input' ? [(attributes as { name: string }).name] : [],
  )

it('computes what depends on a tensor from the one in its place, and shares the rest', () => {
  const [a, b, c, given] = ['a', 'b', 'c', 'given'].map((name) => input(name, 'float32', [2]))
  const early = mul(a, b)
  const late = add(early, c)
  const apart = mul(b, c)
  const [first, second] = substitute([mul(late, late), apart], new Map([[late, given]]))
  expect(inputNames([first])).toEqual(['given'])
  expect(second).toBe(apart)
  const [whole] = substitute([late], new Map([[early, given]]))
  expect(inputNames([whole])).toEqual(['given', 'c'])
  // The original stays as it was, and what is replaced itself is given back.
  expect(inputNames([late])).toEqual(['a', 'b', 'c'])
  expect(substitute([early], new Map([[early, given]]))).toEqual([given])
})
