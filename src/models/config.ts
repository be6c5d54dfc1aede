// Reads keys of a config.json with errors that name them.
import { type ModelConfig, UserError } from '../types.ts'

/** Sizes beyond this are a broken or hostile config, not a model. */
const LARGEST = 2 ** 31

export function reader(config: ModelConfig) {
  const bad = (key: string, expected: string): never => {
    throw new UserError(`config.json: ${key} must be ${expected}, got ${JSON.stringify(config[key])}`)
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
      if (typeof value !== 'number' || !(value > 0)) return bad(key, 'a positive number')
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
      if (large % small !== 0)
        throw new UserError(`config.json: ${smallKey} (${small}) must divide ${largeKey} (${large})`)
    },
  }
}
