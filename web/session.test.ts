import { expect, test } from 'vitest'
import { modeName } from './session.ts'

test.each([
  ['ar', 'autoregressive'],
  ['speculative', 'speculative: drafts that are checked'],
  ['diffusion', 'diffusion, blocks of 16'],
  [undefined, 'not loaded yet'],
] as const)('a model in mode %s is described as such', (mode, name) => {
  expect(modeName({ id: 'model', ...(mode ? { mode } : {}), block_size: 16, state: 'ready' })).toBe(name)
})
