// Reads keys of a config.json with errors that name them.
import { ConfigError, type ModelConfig } from '../core/types.ts'

/** Sizes beyond this are a broken or hostile config, not a model. */
const LARGEST = 2 ** 31

/** The largest block that a model is decoded in. */
const LARGEST_BLOCK = 8192

export function reader(config: ModelConfig) {
  const bad = (key: string, expected: string): never => {
    throw new ConfigError(`${key} must be ${expected}, got ${JSON.stringify(config[key])}`)
  }
  return {
    size(key: string, fallback?: number, largest = LARGEST): number {
      const value = config[key] ?? fallback
      if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > largest)
        return bad(key, `a whole number from 1 to ${largest}`)
      return value
    },
    positive(key: string, fallback: number): number {
      const value = config[key] ?? fallback
      if (typeof value !== 'number' || !(value > 0 && Number.isFinite(value))) return bad(key, 'a positive number')
      return value
    },
    flag(key: string, fallback: boolean): boolean {
      const value = config[key] ?? fallback
      if (typeof value !== 'boolean') return bad(key, 'true or false')
      return value
    },
    oneOf(key: string, allowed: readonly string[], fallback: string): string {
      const value = config[key] ?? fallback
      if (typeof value !== 'string' || !allowed.includes(value)) return bad(key, `one of ${allowed.join(', ')}`)
      return value
    },
    /** For settings that the model knows one value of, which is also the one where the key is absent. */
    must(key: string, only: string | number | boolean): void {
      if (config[key] != null && config[key] !== only) bad(key, `${JSON.stringify(only)} (others are not supported)`)
    },
    divides(smallKey: string, small: number, largeKey: string, large: number): void {
      if (large % small !== 0) throw new ConfigError(`${smallKey} (${small}) must divide ${largeKey} (${large})`)
    },
  }
}

/** Checks what a config says of decoding, which no architecture reads: its block size, its mask token and how it sees the text. */
export function checkDecoding(config: ModelConfig, vocabSize: number): void {
  const read = reader(config)
  read.size('block_size', 1, LARGEST_BLOCK)
  for (const key of ['causal_context', 'same_token_labels', 'soft_states', 'noised_groups']) read.flag(key, false)
  const { mask_token_id: mask } = config
  if (mask == null || (Number.isInteger(mask) && (mask as number) >= 0 && (mask as number) < vocabSize)) return
  throw new ConfigError(
    `mask_token_id must be an id below vocab_size (${vocabSize}), got ${JSON.stringify(mask)?.slice(0, 100)}`,
  )
}

/** Refuses, by name, the config of a model that is more than a text model. */
export function checkTextOnly(config: ModelConfig): void {
  const parts = Object.entries(config).filter(
    ([key, value]) => key.endsWith('_config') && typeof value === 'object' && value !== null && 'hidden_size' in value,
  )
  const text = config.text_config as Record<string, unknown> | undefined | null
  if (config.hidden_size === undefined && parts.length > 0)
    throw new ConfigError(
      `this is a model of several parts (${parts.map(([key]) => key).join(', ')}); only text models are ` +
        `supported. ${text?.model_type ? `Its text model is a ${JSON.stringify(text.model_type)}: save that on its own` : 'Save its text model on its own'}`,
    )
}
