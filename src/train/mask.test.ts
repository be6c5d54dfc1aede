import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type LoadedModel, load, randomParameters } from '../checkpoint/load.ts'
import { createModel } from '../models/index.ts'
import { floatValues } from '../quant/layout.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { withMaskToken } from './mask.ts'

const tiny = () => load(join(import.meta.dirname, '..', '..', 'models', 'tiny'), { init: 'random' })

/** The tiny model without the special tokens that it could use, and with no row to spare. */
async function withoutSpare(config: Record<string, unknown> = {}): Promise<LoadedModel> {
  const loaded = await tiny()
  const files = loaded.tokenizer.files()
  const json = JSON.parse(files['tokenizer.json']!)
  json.added_tokens = json.added_tokens.filter((token: { id: number }) => token.id < 259)
  const tokenizer = loadTokenizer({
    'tokenizer.json': JSON.stringify(json),
    'tokenizer_config.json': '{"eos_token": "<|endoftext|>"}',
  })
  const model = createModel({ ...loaded.model.config, vocab_size: tokenizer.vocabSize, ...config })
  return { ...loaded, model, tokenizer, parameters: randomParameters(model, 0) }
}

/** An architecture whose embedding and head have names of their own. */
const llada = { model_type: 'llada', d_model: 8, n_layers: 1, n_heads: 2, mlp_hidden_size: 8 }

describe('withMaskToken', () => {
  it('takes an unused special token and leaves the weights alone', async () => {
    const loaded = await tiny()
    const { loaded: masked, maskToken } = withMaskToken(loaded)
    expect(maskToken).toMatchObject({ token: '<|mask|>', source: 'unused' })
    expect(masked.model.config.mask_token_id).toBe(maskToken.id)
    expect(masked.parameters).toBe(loaded.parameters)
  })

  it('keeps the mask token of a converted model, and obeys the recipe', async () => {
    const loaded = await tiny()
    const converted = { ...loaded, model: createModel({ ...loaded.model.config, mask_token_id: 261 }) }
    expect(withMaskToken(converted).maskToken.id).toBe(261)
    expect(withMaskToken(converted, '<|reserved_2|>').maskToken.id).toBe(262)
    expect(withMaskToken(converted, 263).maskToken.id).toBe(263)
    expect(() => withMaskToken(converted, '<|none|>')).toThrow('mask_token "<|none|>" is not in the tokenizer')
  })

  it.each([{ tie_word_embeddings: true }, { tie_word_embeddings: false }, llada])(
    'adds a token and its rows, %j',
    async (config) => {
      const loaded = await withoutSpare(config)
      const rows = loaded.model.dimensions.vocabSize
      const { loaded: masked, maskToken } = withMaskToken(loaded)
      expect(maskToken).toEqual({ id: rows, token: '<|mask|>', source: 'added' })
      expect(masked.model.dimensions.vocabSize).toBe(rows + 1)
      expect(masked.tokenizer.tokenToId('<|mask|>')).toBe(rows)
      expect(masked.tokenizer.encode('a<|mask|>')).toEqual([97, rows])
      for (const [name, shape] of masked.model.parameters) {
        const data = await floatValues(masked.parameters.get(name)!)
        expect(data.length, name).toBe(shape.reduce((product, size) => product * size, 1))
        const before = loaded.parameters.get(name)!.data
        expect(data.subarray(0, before.length), name).toEqual(before)
      }
    },
  )
})
