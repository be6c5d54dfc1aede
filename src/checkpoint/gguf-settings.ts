// Reads values of a GGUF file's metadata as llama.cpp and the tools around it write them: numbers of any width, flags as
// bools or as 0 and 1, a value for each layer in place of one for all. Knows nothing about what they mean.
import { UserError } from '../core/types.ts'
import type { GgufMetadata, GgufValue } from './gguf.ts'

export interface GgufSettings {
  /** Throws UserError that names file and key. */
  fail(key: string, problem: string): never
  number(key: string): number | undefined
  /** An integer above 0. */
  count(key: string): number | undefined
  requiredCount(key: string): number
  /** An integer above 0, or a list with the same one for each of `layers`; lists of unlike ones are refused. */
  countOfLayers(key: string, layers: number): number | undefined
  flag(key: string): boolean | undefined
  text(key: string): string | undefined
  /** The numbers of a list; none where it is missing. */
  numbers(key: string): readonly number[]
  /** The texts of a list; none where it is missing. */
  texts(key: string): readonly string[]
}

/** A number as it is, or an exact integer of 64 bits. */
const toNumber = (value: GgufValue | undefined): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined

export const ggufSettings = (path: string, metadata: GgufMetadata): GgufSettings => {
  const self: GgufSettings = {
    fail(key, problem) {
      throw new UserError(`${path}: metadata "${key}": ${problem}`)
    },
    number(key) {
      const value = metadata.get(key)
      if (value === undefined) return undefined
      return toNumber(value) ?? self.fail(key, 'expected a number')
    },
    count(key) {
      const value = self.number(key)
      if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return value
      return self.fail(key, `${value} is not a positive integer`)
    },
    requiredCount(key) {
      const value = self.count(key)
      if (value === undefined) throw new UserError(`${path}: metadata "${key}" is missing`)
      return value
    },
    countOfLayers(key, layers) {
      const value = metadata.get(key)
      if (!ArrayBuffer.isView(value) && !Array.isArray(value)) return self.count(key)
      const each = self.numbers(key)
      const [first] = each
      if (first === undefined || each.length < layers) self.fail(key, `${each.length} values for ${layers} layers`)
      if (each.some((one) => one !== first)) self.fail(key, 'differs from layer to layer, which is not supported')
      if (Number.isSafeInteger(first) && first! > 0) return first
      return self.fail(key, `${first} is not a positive integer`)
    },
    flag(key) {
      const value = metadata.get(key)
      if (value === undefined || typeof value === 'boolean') return value
      return value === 0 || value === 1 ? value === 1 : self.fail(key, 'expected true or false')
    },
    text(key) {
      const value = metadata.get(key)
      return value === undefined || typeof value === 'string' ? value : self.fail(key, 'expected a string')
    },
    numbers(key) {
      const value = metadata.get(key) ?? []
      if (ArrayBuffer.isView(value)) return Array.from(value as ArrayLike<number | bigint>, Number)
      return Array.isArray(value) && value.length === 0 ? [] : self.fail(key, 'expected a list of numbers')
    },
    texts(key) {
      const value = metadata.get(key) ?? []
      if (ArrayBuffer.isView(value) && value.byteLength === 0) return []
      if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value
      return self.fail(key, 'expected a list of strings')
    },
  }
  return self
}

/** The shortest decimal that is the same float32: 1e-5 is stored as 0.000009999999747378752. */
export const shortestDecimal = (value: number): number => {
  for (let digits = 1; digits < 10; digits++) {
    const rounded = Number(value.toPrecision(digits))
    if (Math.fround(rounded) === Math.fround(value)) return rounded
  }
  return value
}
