// The tokens of a model as bytes, in a trie, so that an automaton over bytes meets all tokens in one walk.

/** A trie in depth-first order: nodes from 1 on, the root is node 0. */
export interface Vocabulary {
  /** Ids that a set of tokens has room for: rows of the model's output. */
  size: number
  eosTokenIds: readonly number[]
  /** Bytes of a token; undefined where it is no text. */
  bytes(token: number): Uint8Array | undefined
  /** 1 for bytes that are tokens of their own. */
  single: Uint8Array
  nodes: number
  /** Byte that leads to a node. */
  byte: Uint8Array
  /** Length of what leads to a node. */
  depth: Uint16Array
  /** The node after everything below a node. */
  after: Int32Array
  /** The tokens that end at node i are `tokens[first[i]..first[i + 1]]`. */
  first: Int32Array
  tokens: Int32Array
  longest: number
}

/** Tokens of more bytes than this are not used. */
const LONGEST = 256

export interface VocabularyOptions {
  /** Bytes of text by token id; undefined for tokens that are no text, such as special ones. */
  tokens: readonly (Uint8Array | undefined)[]
  eosTokenIds: readonly number[]
  /** Rows of the model's output, where there are more than tokens. */
  size?: number
}

export function createVocabulary({ tokens, eosTokenIds, size = tokens.length }: VocabularyOptions): Vocabulary {
  const ends = new Set(eosTokenIds)
  const usable = tokens.flatMap((bytes, id) =>
    bytes !== undefined && bytes.length > 0 && bytes.length <= LONGEST && id < size && !ends.has(id) ? [id] : [],
  )
  usable.sort((a, b) => compare(tokens[a]!, tokens[b]!) || a - b)
  const single = new Uint8Array(256)
  const byte: number[] = [0]
  const depth: number[] = [0]
  const first: number[] = [0]
  const order: number[] = []
  let longest = 0
  let before: Uint8Array = new Uint8Array(0)
  for (const id of usable) {
    const bytes = tokens[id]!
    if (bytes.length === 1) single[bytes[0]] = 1
    longest = Math.max(longest, bytes.length)
    let common = 0
    while (common < bytes.length && common < before.length && bytes[common] === before[common]) common++
    for (let i = common; i < bytes.length; i++) {
      byte.push(bytes[i])
      depth.push(i + 1)
      first.push(order.length)
    }
    order.push(id)
    before = bytes
  }
  const nodes = byte.length
  first.push(order.length)
  const after = new Int32Array(nodes).fill(nodes)
  const open: number[] = []
  for (let i = 1; i < nodes; i++) {
    while (open.length > 0 && depth[open[open.length - 1]] >= depth[i]) after[open.pop()!] = i
    open.push(i)
  }
  return {
    size,
    eosTokenIds: [...ends].filter((id) => id >= 0 && id < size),
    bytes: (token) => (ends.has(token) || token >= size ? undefined : tokens[token]),
    single,
    nodes,
    byte: Uint8Array.from(byte),
    depth: Uint16Array.from(depth),
    after,
    first: Int32Array.from(first),
    tokens: Int32Array.from(order),
    longest,
  }
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i]
  return a.length - b.length
}

/** The child of a trie node along a byte; -1 where there is none. */
export function child({ nodes, byte, after }: Vocabulary, node: number, wanted: number): number {
  const end = node === 0 ? nodes : after[node]
  for (let next = node + 1; next < end; next = after[next]) {
    if (byte[next] === wanted) return next
    if (byte[next] > wanted) return -1
  }
  return -1
}
