// What a model's files say of its decoding: what is taken from where, and what is refused in which words.
import { describe, expect, it } from 'vitest'
import { modelDecoding, unreadSettings } from './model-decoding.ts'

const PATH = 'runs/mine/model/generation_config.json'
const kinds = {
  ar: {},
  blocks: { mask_token_id: 7, block_size: 16 },
  hybrid: { mask_token_id: 7, block_size: 16, causal_context: true },
}
const described = (kind: keyof typeof kinds, generationConfig: Record<string, unknown> = {}) => ({
  model: { config: { model_type: 'llama', ...kinds[kind] } },
  generationConfig,
  generationConfigPath: PATH,
})

describe('modelDecoding', () => {
  it('takes mode and size from generation_config.json, else from config.json', () => {
    expect(modelDecoding(described('ar'))).toMatchObject({ mode: 'ar', maskTokenId: undefined, settings: {} })
    expect(modelDecoding(described('blocks'))).toMatchObject({ mode: 'diffusion', blockSize: 16 })
    expect(modelDecoding(described('blocks', { mode: 'ar', block_size: 4, threshold: 0.8 }))).toMatchObject({
      ...{ mode: 'ar', modes: ['diffusion', 'ar'], blockSize: 4 },
      settings: { threshold: 0.8 },
    })
    expect(modelDecoding(described('hybrid'))).toMatchObject({ mode: 'speculative', blockSize: 16 })
    expect(modelDecoding(described('hybrid', { masks: 2, lookup: null }))).toMatchObject({ blockSize: 2 })
    expect(modelDecoding(described('ar', { lookup: 0 }), { masks: 3 })).toMatchObject({
      ...{ mode: 'speculative', modes: ['speculative', 'ar'], blockSize: 3 },
    })
  })

  it.each([
    ['blocks', { threshold: 7 }, 'threshold: expected a number from 0 to 1, not 7'],
    ['blocks', { threshold: '0.9' }, 'threshold: expected a number from 0 to 1, not "0.9"'],
    ['blocks', { strategy: 'best' }, 'strategy: expected one of threshold, '],
    ['hybrid', { masks: 0 }, 'masks: expected a whole number of at least 1, not 0'],
    ['ar', { lookup: 400 }, 'lookup: expected a whole number from 0 to 32, not 400'],
    ['ar', { mode: 'fast' }, 'mode: expected one of diffusion, ar, speculative, not "fast"'],
    ['ar', { mode: 'diffusion' }, "mode: diffusion is not one of this model's, which are ar, speculative;"],
    ['ar', { masks: 4 }, 'masks: only models trained with objective hybrid draft at masks of their own'],
    ['blocks', { masks: 4 }, 'masks: only models trained with objective hybrid draft at masks of their own'],
    [
      'ar',
      { block_size: 4 },
      'block_size: belongs to mode diffusion, which this model does not have (ar, speculative)',
    ],
    ['hybrid', { branch_threshold: 0.2 }, 'branch_threshold: row_cost took its place: remove the key'],
    ['ar', { eos_token_id: 'x' }, 'eos_token_id: expected an id or a list of ids, not "x"'],
  ] as const)('refuses in a model of kind %s %j, with file and key', (kind, config, message) => {
    expect(() => modelDecoding(described(kind, config))).toThrow(`${PATH}: ${message}`)
  })

  it('refuses an adapter for a model with masks', () => {
    expect(() => modelDecoding(described('hybrid'), { masks: 2 })).toThrow(
      'an adapter drafts for an autoregressive model',
    )
  })
})

describe('unreadSettings', () => {
  it('are those of modes that a model does not have', () => {
    const tuned = { mode: 'speculative', masks: 2, lookup: 8, threshold: 0.9, bufferSize: 2 } as const
    const unread = (kind: keyof typeof kinds) => Object.keys(unreadSettings(tuned, described(kind).model))
    expect(unread('hybrid')).toEqual([])
    expect(unread('blocks')).toEqual(['mode', 'masks', 'lookup'])
    expect(unread('ar')).toEqual(['masks', 'bufferSize'])
  })
})
