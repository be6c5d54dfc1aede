// Generated text while its blocks are unmasked: masks as shaded cells, new tokens coloured by confidence.
// Knows nothing about models; it gets which token was committed where.
import type { TextStream } from '../tokenizer/stream.ts'
import type { Colors } from './context.ts'

export interface ShownToken {
  /** Index among the generated tokens, counting from 0. */
  index: number
  id: number
  /** Probability of the token when it was committed, 0 to 1. */
  confidence: number
}

export interface UnmaskView {
  /** Opens masked cells up to `length` generated tokens. */
  open(length: number): void
  /** The tokens that one denoising step committed. They are highlighted until the next call. */
  commit(tokens: readonly ShownToken[]): void
  render(colors: Colors): string
}

/**
 * `textFrom` begins the text of a run of tokens at an index. A token that is only a part of a character is shown with the token
 * that completes it.
 */
export function createUnmaskView(textFrom: (index: number) => TextStream): UnmaskView {
  const cells: (ShownToken | undefined)[] = []
  let fresh = new Set<number>()
  return {
    open(length) {
      while (cells.length < length) cells.push(undefined)
    },
    commit(tokens) {
      fresh = new Set()
      for (const token of tokens) {
        while (cells.length <= token.index) cells.push(undefined)
        cells[token.index] = token
        fresh.add(token.index)
      }
    },
    render(colors) {
      let out = ''
      let at = 0
      while (at < cells.length) {
        if (cells[at] === undefined) {
          out += colors.dim('░')
          at++
          continue
        }
        // A run is one text: characters that are several tokens, and leading spaces, come out right.
        const stream = textFrom(at)
        let index = at
        for (; cells[index] !== undefined; index++) {
          const token = cells[index]!
          const { text, bytes } = stream.push(token.id)
          const piece = cells[index + 1] === undefined ? text + stream.end() : text
          if (piece === '' && bytes.length > 0) continue
          // End-of-text and other special tokens have no text, but fill a cell.
          out += piece === '' ? colors.dim('·') : paint(piece, token, fresh.has(index), colors)
        }
        at = index
      }
      return out
    },
  }
}

/** Fresh tokens stand out: green from 0.9, yellow from 0.6, else red; settled ones are plain. */
function paint(text: string, token: ShownToken, isFresh: boolean, colors: Colors): string {
  if (!isFresh) return text
  const color = token.confidence >= 0.9 ? colors.green : token.confidence >= 0.6 ? colors.yellow : colors.red
  return color(colors.bold(text))
}
