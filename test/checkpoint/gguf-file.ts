// Builds small GGUF files for tests, byte by byte, well-formed or not.

/** A metadata value with its GGUF type; a list has the type of its items. */
export type Value =
  | { u8: number }
  | { i8: number }
  | { u16: number }
  | { i16: number }
  | { u32: number }
  | { i32: number }
  | { f32: number }
  | { bool: boolean | number }
  | { string: string }
  | { u64: bigint }
  | { i64: bigint }
  | { f64: number }
  | { list: Value[]; type?: number; count?: bigint }

export interface TensorEntry {
  name: string
  /** Row-major, outermost first. */
  shape: number[]
  /** ggml's number of the type. */
  type: number
  data: Uint8Array
  /** Written in place of the offset that the data really have. */
  offset?: bigint
}

const types = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  list: 9,
  u64: 10,
  i64: 11,
  f64: 12,
}

const kindOf = (value: Value): keyof typeof types => Object.keys(value)[0] as keyof typeof types

const number = (bytes: number, write: (view: DataView) => void): Uint8Array => {
  const out = new Uint8Array(bytes)
  write(new DataView(out.buffer))
  return out
}
const u32 = (value: number): Uint8Array => number(4, (v) => v.setUint32(0, value, true))
const u64 = (value: bigint): Uint8Array => number(8, (v) => v.setBigUint64(0, value, true))
const text = (value: string): Uint8Array => {
  const bytes = new TextEncoder().encode(value)
  return Buffer.concat([u64(BigInt(bytes.length)), bytes])
}

const encode = (value: Value): Uint8Array => {
  if ('u8' in value) return Uint8Array.of(value.u8)
  if ('i8' in value) return number(1, (v) => v.setInt8(0, value.i8))
  if ('u16' in value) return number(2, (v) => v.setUint16(0, value.u16, true))
  if ('i16' in value) return number(2, (v) => v.setInt16(0, value.i16, true))
  if ('u32' in value) return u32(value.u32)
  if ('i32' in value) return number(4, (v) => v.setInt32(0, value.i32, true))
  if ('f32' in value) return number(4, (v) => v.setFloat32(0, value.f32, true))
  if ('bool' in value) return Uint8Array.of(Number(value.bool))
  if ('string' in value) return text(value.string)
  if ('u64' in value) return u64(value.u64)
  if ('i64' in value) return number(8, (v) => v.setBigInt64(0, value.i64, true))
  if ('f64' in value) return number(8, (v) => v.setFloat64(0, value.f64, true))
  const { list, type, count } = value
  const itemType = type ?? (list[0] === undefined ? types.string : types[kindOf(list[0])])
  return Buffer.concat([u32(itemType), u64(count ?? BigInt(list.length)), ...list.map(encode)])
}

export const strings = (values: readonly string[]): Value => ({ list: values.map((string) => ({ string })) })

/** The bytes of a GGUF file: header, metadata, tensor descriptions, padding, data. */
export const ggufFile = (
  metadata: Record<string, Value> | [string, Value][],
  tensors: readonly TensorEntry[],
  { version = 3, alignment = 32 } = {},
): Uint8Array => {
  const entries = Array.isArray(metadata) ? metadata : Object.entries(metadata)
  const parts: Uint8Array[] = [
    Buffer.from('GGUF'),
    u32(version),
    u64(BigInt(tensors.length)),
    u64(BigInt(entries.length)),
    ...entries.map(([key, value]) => Buffer.concat([text(key), u32(types[kindOf(value)]), encode(value)])),
  ]
  const padded = (size: number): number => Math.ceil(size / alignment) * alignment
  let offset = 0
  for (const { name, shape, type, data, offset: written } of tensors) {
    parts.push(
      text(name),
      u32(shape.length),
      ...[...shape].reverse().map((size) => u64(BigInt(size))),
      u32(type),
      u64(written ?? BigInt(offset)),
    )
    offset += padded(data.length)
  }
  const header = Buffer.concat(parts)
  return Buffer.concat([
    header,
    new Uint8Array(padded(header.length) - header.length),
    ...tensors.flatMap(({ data }) => [data, new Uint8Array(padded(data.length) - data.length)]),
  ])
}

export const float32Tensor = (name: string, shape: number[], values: (i: number) => number): TensorEntry => {
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => values(i))
  return { name, shape, type: 0, data: new Uint8Array(data.buffer) }
}

/** Byte-level BPE of a few tokens: all bytes that the test texts need, two merges, two control tokens. */
export const smallVocabulary: Record<string, Value> = (() => {
  const tokens = ['<s>', '</s>', '<pad>', ...'abcdefgh0123', 'Ġ', 'ab', 'Ġab', '<user>']
  const typeOf = (token: string): number => (token === '<user>' ? 4 : /^<.*>$/.test(token) ? 3 : 1)
  return {
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'smollm' },
    'tokenizer.ggml.tokens': strings(tokens),
    'tokenizer.ggml.token_type': { list: tokens.map((token) => ({ i32: typeOf(token) })) },
    'tokenizer.ggml.merges': strings(['a b', 'Ġ ab']),
    'tokenizer.ggml.bos_token_id': { u32: 0 },
    'tokenizer.ggml.eos_token_id': { u32: 1 },
    'tokenizer.ggml.padding_token_id': { u32: 2 },
    'tokenizer.chat_template': { string: '{{ messages }}' },
  }
})()

/** A llama with one layer, two query heads and one key head of four: 8 wide, 20 tokens. */
export const smallLlama: { metadata: Record<string, Value>; tensors: TensorEntry[] } = {
  metadata: {
    'general.architecture': { string: 'llama' },
    'llama.block_count': { u32: 1 },
    'llama.context_length': { u32: 128 },
    'llama.embedding_length': { u32: 8 },
    'llama.feed_forward_length': { u32: 16 },
    'llama.attention.head_count': { u32: 2 },
    'llama.attention.head_count_kv': { u32: 1 },
    'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'llama.rope.freq_base': { f32: 100000 },
    'llama.rope.dimension_count': { u32: 4 },
    ...smallVocabulary,
  },
  tensors: (
    [
      ['token_embd.weight', [20, 8]],
      ['output_norm.weight', [8]],
      ['blk.0.attn_norm.weight', [8]],
      ['blk.0.attn_q.weight', [8, 8]],
      ['blk.0.attn_k.weight', [4, 8]],
      ['blk.0.attn_v.weight', [4, 8]],
      ['blk.0.attn_output.weight', [8, 8]],
      ['blk.0.ffn_norm.weight', [8]],
      ['blk.0.ffn_gate.weight', [16, 8]],
      ['blk.0.ffn_up.weight', [16, 8]],
      ['blk.0.ffn_down.weight', [8, 16]],
    ] as [string, number[]][]
  ).map(([name, shape], n) => float32Tensor(name, shape, (i) => 1000 * n + i)),
}
