// Parameters by name, as a model asks for them.
import { expect, it } from 'vitest'
import { neg } from '../graph/ops/elementwise.ts'
import { createWeights } from './weights.ts'

const shapes = new Map([
  ['a', [2]],
  ['layers.0.w.weight', [3, 4]],
])

it('each name becomes one input, however often it is asked for', () => {
  const weights = createWeights(shapes)
  const tensor = weights('layers.0.w.weight')
  expect(tensor.shape).toEqual([3, 4])
  expect(weights.in('layers.0').in('w')('weight')).toBe(tensor)
  expect([...weights.used.keys()]).toEqual(['layers.0.w.weight'])
  weights('a')
  expect([...weights.in('layers').used.keys()]).toEqual(['layers.0.w.weight', 'a'])
})

it('knows which names there are, below a prefix too', () => {
  const weights = createWeights(shapes)
  expect(weights.has('a')).toBe(true)
  expect(weights.in('layers.0.w').has('weight')).toBe(true)
  expect(weights.in('layers.0.w').has('bias')).toBe(false)
  expect(() => weights.in('layers.0')('bias')).toThrow('the model has no parameter layers.0.bias')
})

it('trace names the scope of what is built', () => {
  const node = createWeights(shapes).trace('layers.0', (layer) => layer.trace('w', (w) => neg(w('weight')))).node
  expect(node.scope).toBe('layers.0.w')
})
