import { describe, expect, it } from 'vitest'
import { chooseMaskToken, embeddingNoise, growEmbedding, type TokenNames } from './mask-token.ts'

/** A tokenizer of special tokens and single bytes: enough of one to choose a mask token from. */
function tokenizerOf(special: readonly string[], options: Partial<TokenNames> = {}): TokenNames {
  const tokens = [...special, ...Array.from({ length: 256 }, (_, byte) => `byte ${byte}`)]
  return {
    vocabSize: tokens.length,
    bosTokenId: undefined,
    eosTokenId: 0,
    padTokenId: undefined,
    chatTemplate: undefined,
    idToToken: (id) => tokens[id],
    specialTokenIds: special.map((_, id) => id),
    ...options,
  }
}

describe('chooseMaskToken', () => {
  const choose = (special: readonly string[], options: Partial<TokenNames> = {}, inUse: number[] = []) =>
    chooseMaskToken(tokenizerOf(special, options), { rows: special.length + 256, inUse }).token

  it('prefers a name that says mask, then reserved, then unused', () => {
    expect(choose(['</s>', '<unused0>', '<|reserved_special_token_0|>', '[MASK]'])).toBe('[MASK]')
    expect(choose(['</s>', '<unused0>', '<|reserved_special_token_0|>'])).toBe('<|reserved_special_token_0|>')
    expect(choose(['</s>', '<repo_name>', '<unused0>', '<unused1>'])).toBe('<unused0>')
  })

  it('takes the first repository marker of SmolLM2', () => {
    const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<repo_name>', '<reponame>', '<file_sep>']
    expect(choose(special)).toBe('<repo_name>')
    expect(choose(special, {}, [3])).toBe('<reponame>')
  })

  it('takes the first object marker of Qwen', () => {
    const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|object_ref_start|>', '<|fim_prefix|>']
    expect(choose(special)).toBe('<|object_ref_start|>')
  })

  it('never takes a token that is in use', () => {
    const special = ['</s>', '<s>', '<unk>', '<pad>', '<|eot_id|>', '<|start_header_id|>', '<|python_tag|>', '<turn>']
    const added = { id: special.length + 256, token: '<|mask|>', source: 'added' }
    expect(chooseMaskToken(tokenizerOf(special), { rows: special.length + 256 })).toEqual(added)
    expect(choose(['</s>', '<a>', '<b>'], { chatTemplate: "{{ '<a>' + messages[0].content }}" })).toBe('<b>')
    expect(choose(['</s>', '<a>', '<b>'], { bosTokenId: 1, padTokenId: 2 })).toBe('<|mask|>')
  })

  it('keeps a configured id and checks it', () => {
    const tokenizer = tokenizerOf(['</s>', '<a>'])
    expect(chooseMaskToken(tokenizer, { rows: 300, configured: 1 })).toMatchObject({ id: 1, token: '<a>' })
    expect(() => chooseMaskToken(tokenizer, { rows: 300, configured: 300 })).toThrow(/300 embedding rows/)
  })

  it('does not take a token without an embedding row', () => {
    expect(chooseMaskToken(tokenizerOf(['</s>', '<a>']), { rows: 1 }).source).toBe('added')
  })
})

describe('growEmbedding', () => {
  it('adds the mean row, or fills a spare one', () => {
    const embedding = new Float32Array([1, 2, 3, 6])
    expect(growEmbedding(embedding, 2, 2)).toEqual(new Float32Array([1, 2, 3, 6, 2, 4]))
    expect(growEmbedding(embedding, 2, 1)).toEqual(new Float32Array([1, 2, 1, 2]))
    expect(() => growEmbedding(embedding, 3, 1)).toThrow(/rows of 3/)
    expect(() => growEmbedding(embedding, 2, 3)).toThrow(/token 3/)
  })
})

describe('embeddingNoise', () => {
  it('starts at sigma and ends after its steps', () => {
    for (const decay of ['linear', 'cosine', 'constant'] as const) {
      const at = (step: number) => embeddingNoise(step, { sigma: 0.5, steps: 10, decay })
      expect(at(0)).toBe(0.5)
      expect(at(5)).toBeCloseTo(decay === 'constant' ? 0.5 : 0.25)
      expect(at(10)).toBe(0)
      expect(at(1e6)).toBe(0)
    }
    expect(embeddingNoise(0, { sigma: 0.5, steps: 0, decay: 'linear' })).toBe(0)
  })
})
