// Personal data by its form: patterns propose, check digits and libraries decide. Names and postal addresses have no form, and
// are not found.
import { type CountryCode, isValidPhoneNumber } from 'libphonenumber-js'
import validator from 'validator'
import { type Accept, compilePattern } from './pattern.ts'
import type { Action, Detector } from './types.ts'

export const piiKinds = ['email', 'phone', 'credit_card', 'iban', 'ip_address'] as const
export type PiiKind = (typeof piiKinds)[number]

export interface PiiOptions {
  kinds?: readonly PiiKind[]
  /** Country of phone numbers without a country code, as ISO 3166 names it; without it these are not found. */
  country?: string
  action?: Action
}

interface Kind {
  pattern: string
  /** What may not stand beside a match. */
  neighbours: RegExp
  /** What the characters of a match must be. */
  valid(text: string, country: string | undefined): boolean
  /** Whether less than the longest match may be one. */
  shorter?: true
}

const kinds: Record<PiiKind, Kind> = {
  email: {
    pattern: '[a-z0-9._%+-]{1,64}@(?:[a-z0-9-]{1,63}\\.){1,8}[a-z]{2,24}',
    neighbours: /[\p{L}\p{N}]/u,
    valid: (text) => validator.isEmail(text),
  },
  credit_card: {
    pattern: '\\d(?:[ -]?\\d){11,18}',
    neighbours: /\d/,
    valid: (text) => validator.isCreditCard(text.replace(/[ -]/g, '')),
    shorter: true,
  },
  iban: {
    pattern: '[a-z]{2}\\d{2}(?: ?[a-z0-9]){11,30}',
    neighbours: /[\p{L}\p{N}]/u,
    valid: (text) => validator.isIBAN(text.replace(/ /g, '')),
    shorter: true,
  },
  ip_address: {
    pattern: '(?:\\d{1,3}\\.){3}\\d{1,3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}',
    neighbours: /[\p{L}\p{N}:]/u,
    valid: (text) => validator.isIP(text) && /[0-9a-f]{2}/i.test(text),
  },
  phone: {
    pattern: '\\+?\\(?\\d(?:[ ().\\/-]{0,2}\\d){6,16}',
    neighbours: /[\p{L}\p{N}]/u,
    valid: (text, country) => isValidPhoneNumber(text, country as CountryCode | undefined),
    shorter: true,
  },
}

/** Finds personal data of the kinds named; each is replaced by its name in brackets. */
export function createPii({ kinds: wanted = piiKinds, country, action = 'redact' }: PiiOptions): Detector {
  const detectors = wanted.map((name) => {
    const { pattern, neighbours, valid, shorter } = kinds[name]
    const beside = (text: string, at: number) => at >= 0 && at < text.length && neighbours.test(charAt(text, at))
    const accept: Accept = (text, start, longest) => {
      if (beside(text, start - 1)) return undefined
      for (let end = longest; end > start; end--) {
        if (!beside(text, end) && valid(text.slice(start, end), country)) return end
        if (!shorter) return undefined
      }
      return undefined
    }
    return { name, accept, pattern: compilePattern(pattern) }
  })
  return {
    find: (text, from) =>
      detectors.flatMap(({ name, pattern, accept }) =>
        pattern.matches(text, from, accept).map(({ start, end }) => ({
          rule: `pii:${name}`,
          category: 'pii',
          action,
          score: 1,
          start,
          end,
          replacement: `[${name.toUpperCase()}]`,
        })),
      ),
    open: (text, from) => Math.min(text.length, ...detectors.map(({ pattern }) => pattern.open(text, from))),
  }
}

/** The character at an index, whole where it takes two units. */
function charAt(text: string, at: number): string {
  const low = text.charCodeAt(at)
  return String.fromCodePoint(text.codePointAt(low >= 0xdc00 && low <= 0xdfff && at > 0 ? at - 1 : at) as number)
}
