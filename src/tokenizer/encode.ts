// From text to ids: where special tokens are recognised, and texts that come in parts. Uses no Node API.
import type { AddedToken, LibraryTokenizer, LibraryTokenizers, Prefix } from './library.ts'
import type { EncodeOptions } from './types.ts'

/** Stands behind the first character of a special token that is only text: a noncharacter, doubled where text has one itself. */
const GUARD = '\ufdd0'

export interface EncoderOptions extends Pick<LibraryTokenizers, 'start' | 'inside'> {
  prefix: Prefix
  /** Added tokens that `start` and `inside` do not find. */
  found: readonly AddedToken[]
  special: readonly AddedToken[]
  /** The id of text that the vocabulary does not have: it may be special, and yet result from text. */
  unknownId: number | undefined
  /** Ids put before and behind a text. */
  around: { before: readonly number[]; behind: readonly number[] }
}

export interface Encoder {
  encodeParts(parts: readonly string[], options?: EncodeOptions): number[][]
  guard(text: string): string
  /** Whether text that follows `ids` gets the tokenizer's own space in front, which is no part of the text. */
  prefixes(ids: ArrayLike<number>): boolean
}

export function createEncoder({ start, inside, prefix, ...options }: EncoderOptions): Encoder {
  const { found, special, unknownId, around } = options
  const tokens = createFinder(found)
  const ordinary = createFinder(found.filter((token) => !token.special))
  const specials = createFinder(special)
  const specialIds = new Set(special.map(({ id }) => id).filter((id) => id !== unknownId))
  const addedIds = new Set([...found, ...special].map(({ id }) => id))
  const encodeWith = (library: LibraryTokenizer, text: string): number[] =>
    text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids

  /** Text without tokens in it; special ids are none of text, whatever a vocabulary makes of it. */
  function encodeText(text: string, begins: boolean): number[] {
    const ids = encodeWith(begins ? start : inside, text)
    if (!ids.some((id) => specialIds.has(id))) return ids
    const pieces: string[] = []
    let at = 0
    for (const { index, token } of specials(text)) {
      const cut = index + firstCharacter(token.content).length
      pieces.push(text.slice(at, cut))
      at = cut
    }
    pieces.push(text.slice(at))
    return pieces
      .flatMap((piece, i) => encodeWith(begins && i === 0 ? start : inside, piece))
      .filter((id) => !specialIds.has(id))
  }

  function encodeParts(
    parts: readonly string[],
    { special: mode = 'tokens', addSpecialTokens, continues }: EncodeOptions = {},
  ) {
    const find = mode === 'text' ? ordinary : tokens
    const clean = mode === 'guarded' ? unguard : (text: string) => text
    // What stands before the next text: nothing, a token, or text that it continues.
    let before: 'nothing' | 'token' | 'text' = continues ? 'text' : 'nothing'
    const encoded = parts.map((part) => {
      const ids: number[] = []
      const add = (text: string) => {
        if (text === '') return
        const begins = before === 'nothing' || (before === 'token' && prefix !== 'once')
        // One by one: arguments of a call are limited.
        for (const id of encodeText(clean(text), begins)) ids.push(id)
        before = addedIds.has(ids.at(-1) as number) ? 'token' : 'text'
      }
      let at = 0
      let strip = false
      for (const { index, token } of find(part)) {
        const text = part.slice(at, index)
        const right = strip ? text.trimStart() : text
        add(token.lstrip ? right.trimEnd() : right)
        ids.push(token.id)
        before = 'token'
        strip = token.rstrip === true
        at = index + token.content.length
      }
      const rest = part.slice(at)
      add(strip ? rest.trimStart() : rest)
      return ids
    })
    if (addSpecialTokens && encoded.length > 0) {
      encoded[0] = [...around.before, ...encoded[0]]
      encoded.at(-1)?.push(...around.behind)
    }
    return encoded
  }

  function guard(text: string): string {
    const doubled = text.replaceAll(GUARD, GUARD + GUARD)
    let guarded = ''
    let at = 0
    for (const { index, token } of specials(doubled)) {
      const cut = index + firstCharacter(token.content).length
      guarded += doubled.slice(at, cut) + GUARD
      at = cut
    }
    return guarded + doubled.slice(at)
  }

  return {
    encodeParts,
    guard,
    prefixes(ids) {
      const { before } = around
      if (ids.length === before.length && before.every((id, i) => id === ids[i])) return prefix !== 'none'
      return ids.length === 0 ? prefix !== 'none' : prefix === 'every' && addedIds.has(ids[ids.length - 1])
    },
  }
}

const unguard = (text: string): string => text.replace(/\ufdd0(\ufdd0?)/g, '$1')

const firstCharacter = (text: string): string => String.fromCodePoint(text.codePointAt(0) as number)

interface Node {
  next: Map<string, Node>
  token?: AddedToken
}

/** Finds tokens in a text from left to right, the longest that begins at a place. */
function createFinder(tokens: readonly AddedToken[]): (text: string) => { index: number; token: AddedToken }[] {
  const root: Node = { next: new Map() }
  for (const token of tokens) {
    let node = root
    for (let i = 0; i < token.content.length; i++) {
      const next = node.next.get(token.content[i]) ?? { next: new Map() }
      node.next.set(token.content[i], next)
      node = next
    }
    node.token = token
  }
  return (text) => {
    const places: { index: number; token: AddedToken }[] = []
    for (let index = 0; index < text.length; ) {
      let longest: AddedToken | undefined
      let node = root.next.get(text[index])
      for (let i = index + 1; node; node = node.next.get(text[i++])) longest = node.token ?? longest
      if (longest) places.push({ index, token: longest })
      index += longest?.content.length ?? 1
    }
    return places
  }
}
