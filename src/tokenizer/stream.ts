// Text of tokens that arrive one after the other. Characters may be spread over several tokens and a token's text may depend
// on its neighbour (spaces), so a few tokens are decoded again with each new one. Uses no Node API.
import type { Tokenizer } from './types.ts'

export interface TextStream {
  /** The text that these tokens add; a character is given when it is whole. */
  push(tokens: readonly number[]): string
  /** What is left: the beginning of a character that never became whole. */
  end(): string
}

export function createTextStream({ decode }: Pick<Tokenizer, 'decode'>): TextStream {
  const textOf = (ids: readonly number[]) => (ids.length === 0 ? '' : decode(ids, { skipSpecialTokens: true }))
  /** Tokens whose text has been given, of which the last few are kept, and those behind them. */
  let given: number[] = []
  let waiting: number[] = []
  const take = (whole: boolean): string => {
    const before = textOf(given)
    const after = textOf([...given, ...waiting])
    if (!whole && (after.length <= before.length || after.endsWith('\ufffd'))) return ''
    if (waiting.length > 0) given = waiting
    waiting = []
    return after.slice(before.length)
  }
  return {
    push(tokens) {
      let text = ''
      for (const token of tokens) {
        waiting.push(token)
        text += take(false)
      }
      return text
    },
    end: () => take(true),
  }
}
