// The golden models against their reference results from PyTorch.
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { checkFolder } from './golden/check.ts'
import { hasTorch } from './torch.ts'

const models = [
  ['llama-tied', 'a tied Llama'],
  ['qwen2', 'a Qwen2: biases of queries, keys and values'],
  ['qwen3', 'a tied Qwen3: norms of single heads, which are wider than the hidden size'],
  ['llada2-moe', 'a LLaDA2-MoE: experts chosen from groups, a shared one, a dense first layer'],
] as const

const folderOf = (name: string): string => fileURLToPath(new URL(`./golden/${name}`, import.meta.url))

it.each(models)(
  '%s, %s, gives the reference logits, losses, gradients, updates and decoding states',
  async (folder) => {
    const results = await checkFolder(folderOf(folder))
    const cases = results.map((result) => result.case)
    for (const kind of ['logits.', 'loss.', 'gradients.', 'adamw.', 'decode.'])
      expect(
        cases.some((name) => name.startsWith(kind)),
        `${kind}* among ${cases}`,
      ).toBe(true)
    expect(results.filter(({ pass }) => pass !== true)).toEqual([])
  },
)

describe.skipIf(!hasTorch)('in PyTorch', () => {
  it.each(models)('%s, %s, gives the reference logits, losses, gradients and updates', async (folder) => {
    const results = await checkFolder(folderOf(folder), 'torch')
    expect(results.length).toBeGreaterThan(10)
    expect(results.filter(({ pass }) => pass !== true)).toEqual([])
  })
})
