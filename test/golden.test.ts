// The golden model against its reference results from PyTorch.
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { checkFolder } from './golden/check.ts'

it('a tied Llama gives the reference logits, losses, gradients, updates and decoding states', async () => {
  const results = await checkFolder(fileURLToPath(new URL('./golden/llama-tied', import.meta.url)))
  const cases = results.map((result) => result.case)
  for (const kind of ['logits.', 'loss.', 'gradients.', 'adamw.', 'decode.'])
    expect(
      cases.some((name) => name.startsWith(kind)),
      `${kind}* among ${cases}`,
    ).toBe(true)
  expect(results.filter(({ pass }) => pass !== true)).toEqual([])
})
