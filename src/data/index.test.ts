import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { beforeAll, describe, expect, test } from 'vitest'
import { UserError } from '../core/types.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { findFiles } from './files.ts'
import { type Batch, type DataOptions, heldOutShare, openData, readDocuments, validationBatches } from './index.ts'
import { readEpoch } from './stream.ts'

const vocab = Object.fromEntries(Array.from({ length: 96 }, (_, i) => [String.fromCharCode(32 + i), i]))
const EOS = 96
/** One token per character. */
const tokenizer = loadTokenizer({
  'tokenizer.json': JSON.stringify({
    model: { type: 'BPE', vocab, merges: [] },
    added_tokens: [{ id: EOS, content: '<|end|>', special: true }],
    decoder: { type: 'Fuse' },
  }),
  'tokenizer_config.json': JSON.stringify({ eos_token: '<|end|>' }),
})

let folder = ''
let files = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-data-'))
})

async function write(content: string | Uint8Array, type = 'jsonl'): Promise<string> {
  const path = join(folder, `${files++}.${type}`)
  await writeFile(path, content)
  return path
}
const jsonl = (rows: unknown[]) => write(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))

const options = (paths: DataOptions['paths'], more: Partial<DataOptions> = {}): DataOptions => ({
  paths,
  tokenizer,
  rows: 3,
  length: 32,
  blockSize: 4,
  seed: 1,
  ...more,
})

/** Texts of many lengths, some of several rows, each different from every other. */
const texts = Array.from({ length: 120 }, (_, i) => ({ text: `<${i}>${'abcdefg'.repeat((i * 5) % 13)}</${i}>` }))

/** The texts of the pieces in a batch, without their EOS. */
function pieces(batch: Batch): string[] {
  const found: string[] = []
  for (let row = 0; row < batch.rows; row++) {
    for (let i = row * batch.length; i < (row + 1) * batch.length; i++) {
      if (batch.documents[i] === -1) break
      if (batch.positions[i] === 0) found.push('')
      if (batch.ids[i] !== EOS) found[found.length - 1] += tokenizer.idToToken(batch.ids[i]!)!
    }
  }
  return found
}

async function collect(settings: DataOptions, count: number): Promise<Batch[]> {
  const source = await openData(settings)
  const batches: Batch[] = []
  for (let i = 0; i < count; i++) batches.push(await source.next())
  await source.close()
  return batches
}

async function textsOf(settings: DataOptions): Promise<string[]> {
  const found: string[] = []
  for await (const document of readDocuments(settings)) found.push(tokenizer.decode(document.ids.subarray(0, -1)))
  return found
}

describe('openData', () => {
  test('every piece of every document comes once in each epoch, however it is packed', async () => {
    const path = await jsonl(texts)
    const source = await openData(options([path], { shuffleBuffer: 10 }))
    const counts = new Map<string, number>()
    while (source.report().epoch < 5) {
      for (const piece of pieces(await source.next())) counts.set(piece, (counts.get(piece) ?? 0) + 1)
    }
    const expected = new Set(texts.flatMap(({ text }) => text.match(/.{1,32}/g)!))
    expect(new Set(counts.keys())).toEqual(expected)
    // A piece may still wait, or belong to two documents; otherwise the epochs are even.
    const own = [...counts].filter(([piece]) => piece.startsWith('<')).map(([, count]) => count)
    expect(Math.min(...own)).toBeGreaterThanOrEqual(3)
    expect(Math.max(...own)).toBeLessThanOrEqual(6)
    expect(source.report()).toMatchObject({ files: 1, badRows: 0, notes: [], epoch: 5 })
    await source.close()
  })

  test('the pieces of a long document are spread over batches', async () => {
    const path = await jsonl([{ text: 'L'.repeat(32 * 40) }, ...texts])
    const batches = await collect(options([path]), 30)
    const long = batches.map((batch) => pieces(batch).filter((piece) => piece.startsWith('LLL')).length)
    expect(Math.max(...long)).toBeLessThanOrEqual(2)
  })

  test('order depends on the seed', async () => {
    const path = await jsonl(texts)
    const order = async (seed: number) => (await collect(options([path], { seed }), 40)).flatMap(pieces)
    const first = await order(1)
    expect(await order(1)).toEqual(first)
    expect(await order(2)).not.toEqual(first)
  })

  test('each epoch has an order of its own, and all documents', async () => {
    const path = await jsonl(texts)
    const stream = {
      files: await findFiles(path),
      columns: {},
      seed: 1,
      source: 0,
      validationFraction: 0,
      split: 'train' as const,
      shuffleBuffer: 30,
      onBadRow: () => expect.unreachable(),
      onOtherSplit: () => expect.unreachable(),
      onEmpty: () => expect.unreachable(),
    }
    const lines = async (epoch: number) => {
      const found: number[] = []
      for await (const located of readEpoch(stream, epoch)) found.push(located.line)
      return found
    }
    const [first, second] = [await lines(0), await lines(1)]
    expect(await lines(0)).toEqual(first)
    expect(second).not.toEqual(first)
    for (const order of [first, second]) {
      expect([...order].sort((a, b) => a - b)).toEqual(texts.map((_, i) => i + 1))
      expect(order.some((line, i) => Math.abs(line - i) > 20)).toBe(true)
    }
  })

  test('reads Parquet', async () => {
    const data = texts.map(({ text }) => text)
    const columnData = [{ name: 'text', data, type: 'STRING' as const }]
    const path = await write(new Uint8Array(parquetWriteBuffer({ columnData })), 'parquet')
    expect(await textsOf(options([path]))).toEqual(data)
  })

  test('shuffleBuffer 1 keeps the order of the files in what is drawn', async () => {
    const source = await openData(options([await jsonl(texts)], { shuffleBuffer: 1, rows: 1 }))
    const ids = (await source.next()).documentIds.map((id) => Number(/:(\d+)/.exec(id)![1]))
    expect(Math.max(...ids)).toBeLessThanOrEqual(30)
    await source.close()
  })

  test('a prompt is never maskable and a too long completion is truncated and reported', async () => {
    const path = await jsonl([
      { question: 'q'.repeat(10), answer: 'a'.repeat(5) },
      { question: 'q'.repeat(10), answer: 'a'.repeat(50) },
      { question: 'q'.repeat(40), answer: 'a' },
    ])
    const source = await openData(options([path], { columns: { prompt: 'question', completion: 'answer' } }))
    for (let i = 0; i < 10; i++) {
      const batch = await source.next()
      for (const [at, id] of batch.ids.entries()) {
        if (batch.documents[at] !== -1) expect(batch.maskable[at]).toBe(tokenizer.idToToken(id) === 'q' ? 0 : 1)
      }
      expect(batch.bytes).toBe(batch.ids.filter((id) => tokenizer.idToToken(id) === 'a').length)
    }
    expect(source.report()).toMatchObject({
      badRows: 1,
      reasons: [{ rows: 1, reason: 'the prompt alone fills a row of 32 tokens', first: { file: path, line: 3 } }],
      notes: [{ rows: 1, reason: expect.stringContaining('its end is left out'), first: { file: path, line: 2 } }],
    })
    await source.close()
  })

  test('weights are the shares of the documents', async () => {
    // Files of one row would be opened anew for each piece.
    const rows = (...texts: string[]) => jsonl(texts.flatMap((text) => Array.from({ length: 100 }, () => ({ text }))))
    const [a, b] = [await rows('aaa'), await rows('bbb', 'bbc')]
    const shares = async (paths: DataOptions['paths']) => {
      const all = (await collect(options(paths), 100)).flatMap(pieces)
      return all.filter((piece) => piece === 'aaa').length / all.length
    }
    expect(await shares([{ path: a, weight: 3 }, b])).toBeCloseTo(0.75, 1)
    expect(await shares([a, b])).toBeCloseTo(1 / 3, 1)
  })
})

describe('resume', () => {
  let settings: DataOptions
  const batches: Batch[] = []
  const positions: string[] = []

  beforeAll(async () => {
    const other = await jsonl(texts.map(({ text }) => ({ text: `o${text}` })))
    const prompts = await jsonl(texts.map(({ text }) => ({ prompt: text.slice(0, 20), completion: `=${text}` })))
    const long = await write(`${'long text\n'.repeat(200)}<|endoftext|>short`, 'txt')
    settings = options([other, { path: prompts, weight: 2 }, long], { shuffleBuffer: 16, validationFraction: 0.1 })
    const source = await openData(settings)
    for (let i = 0; i < 150; i++) {
      positions.push(JSON.stringify(source.position()))
      batches.push(await source.next())
    }
    await source.close()
  })

  test('continues with exactly the same batches from any point', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(149), async (at) => {
        const source = await openData(settings)
        await source.next()
        await source.restore(JSON.parse(positions[at]!))
        expect(JSON.stringify(source.position())).toBe(positions[at])
        for (let i = at; i < Math.min(at + 12, 150); i++) expect(await source.next()).toEqual(batches[i])
        await source.close()
      }),
      { numRuns: 12 },
    )
  }, 30_000)

  test('positions stay small', () => {
    expect(Math.max(...positions.map((position) => position.length))).toBeLessThan(4000)
  })

  test('refuses other files, other settings, and a damaged position', async () => {
    const restore = async (more: Partial<DataOptions>, position: string) => {
      const source = await openData({ ...settings, ...more })
      await source.restore(JSON.parse(position)).finally(source.close)
    }
    const at = positions[20]!
    await expect(restore({ seed: 2 }, at)).rejects.toThrow(/data settings have changed/)
    await expect(restore({ length: 64 }, at)).rejects.toThrow(/data settings have changed/)
    await expect(restore({ paths: settings.paths.slice(1) }, at)).rejects.toThrow(UserError)
    const others = [await jsonl(texts), ...settings.paths.slice(1)]
    await expect(restore({ paths: others }, at)).rejects.toThrow(/data files have changed/)
    await expect(restore({}, '{}')).rejects.toThrow(/position is damaged/)
    await expect(restore({}, at.replace(/"ordinal":\d+/, '"ordinal":-1'))).rejects.toThrow(/damaged: .*ordinal/s)
    await expect(restore({}, at.replace(/"source":\d/, '"source":7'))).rejects.toThrow(/unknown source/)
    await expect(restore({}, at.replace(/"next":\d+/, '"next":99'))).rejects.toThrow(/data has changed/)
  })
})

describe('the held-out split', () => {
  test('is disjoint from training, covers the rest, and does not depend on order, file or seed', async () => {
    const validationFraction = 0.3
    const path = await jsonl(texts)
    const split = async (paths: string[], which: 'train' | 'validation') =>
      textsOf(options(paths, { validationFraction, split: which }))
    const [train, validation] = [await split([path], 'train'), await split([path], 'validation')]
    expect(validation.length).toBeGreaterThan(15)
    expect(train.filter((text) => validation.includes(text))).toEqual([])
    expect([...train, ...validation].sort()).toEqual(texts.map(({ text }) => text).sort())

    const reversed = [...texts].reverse()
    const halves = [await jsonl(reversed.slice(0, 50)), await jsonl(reversed.slice(50))]
    expect((await split(halves, 'validation')).sort()).toEqual([...validation].sort())

    const trained = (await collect(options([path], { validationFraction, seed: 9 }), 60)).flatMap(pieces)
    const heldOut = new Set(validation.map((text) => text.slice(0, 32)))
    expect(trained.filter((piece) => heldOut.has(piece))).toEqual([])
  })

  test('validationBatches takes each held-out document once, and as many tokens as asked', async () => {
    const settings = options([await jsonl(texts)], { validationFraction: 0.5 })
    const all = await validationBatches(settings, 1e9)
    expect(await validationBatches(settings, 1e9)).toEqual(all)
    const found = all.flatMap(pieces)
    const expected = (await textsOf({ ...settings, split: 'validation' })).flatMap((text) => text.match(/.{1,32}/g)!)
    expect(found.sort()).toEqual(expected.sort())
    const some = await validationBatches(settings, 200)
    const tokens = some.reduce((sum, batch) => sum + batch.tokens - batch.padding.reduce((a, b) => a + b), 0)
    expect(tokens).toBeGreaterThanOrEqual(200)
    expect(tokens).toBeLessThan(200 + 32)
    expect(found).toEqual(expect.arrayContaining(some.flatMap(pieces)))
  })

  test('validationBatches takes the same text whatever the block size and the rows of a batch', async () => {
    const path = await jsonl(texts)
    const read = async (blockSize: number, rows: number) => {
      const settings = options([path], { validationFraction: 0.5, length: 32, blockSize, rows })
      const batches = await validationBatches(settings, 200)
      return { text: batches.flatMap(pieces).sort(), bytes: batches.reduce((sum, batch) => sum + batch.bytes, 0) }
    }
    const expected = await read(1, 1)
    for (const blockSize of [1, 4, 16, 32])
      for (const rows of [1, 3]) expect(await read(blockSize, rows)).toEqual(expected)
  })

  test('an empty split is an error that says why', async () => {
    const path = await jsonl(texts.slice(0, 3))
    await expect(validationBatches(options([path]), 100)).rejects.toThrow(
      /validation split of .*a held-out share of 0 is too little of 3 documents: raise --validation-fraction/,
    )
  })
})

describe('heldOutShare', () => {
  const sides = async (rows: unknown[], fraction: number) => {
    const paths = [await jsonl(rows)]
    const validationFraction = await heldOutShare({ paths, validationFraction: fraction })
    const side = (split: 'train' | 'validation') => textsOf(options(paths, { validationFraction, split }))
    return { validationFraction, train: await side('train'), validation: await side('validation') }
  }

  test('leaves a share that parts the documents as it is', async () => {
    expect((await sides(texts, 0.3)).validationFraction).toBe(0.3)
    expect((await sides(texts, 0)).validationFraction).toBe(0)
  })

  test('of few documents holds out one at least, and not all, whatever their order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray(texts, { minLength: 2, maxLength: 12 }),
        fc.constantFrom(0.02, 0.5),
        async (rows, fraction) => {
          const { train, validation } = await sides(rows, fraction)
          expect(Math.min(train.length, validation.length)).toBeGreaterThan(0)
          expect([...train, ...validation].sort()).toEqual(rows.map(({ text }) => text).sort())
          expect((await sides([...rows].reverse(), fraction)).validation.sort()).toEqual(validation.sort())
        },
      ),
      { numRuns: 40, seed: 1 },
    )
  })

  test('refuses what cannot be parted, and what has no rows, by what there is', async () => {
    const share = (paths: DataOptions['paths'], validationFraction = 0.02) =>
      heldOutShare({ paths, validationFraction })
    await expect(share([await jsonl(texts.slice(0, 1))])).rejects.toThrow(
      /only one document.*name held-out data with --validation-path/,
    )
    await expect(share([await jsonl([texts[0], texts[0]])])).rejects.toThrow(/only one document/)
    expect(await share([await jsonl(texts.slice(0, 1))], 0)).toBe(0)
    await expect(share([await write('')], 0)).rejects.toThrow(/there are no rows in the file/)
    await expect(share([await jsonl([{ question: 'q' }])])).rejects.toThrow(/no "messages".*the row has question/)
    await expect(share([await jsonl(texts), await write('')], 0)).resolves.toBe(0)
    const empty = await write('')
    await expect(
      share([
        { path: await jsonl(texts), weight: 1 },
        { path: empty, weight: 1 },
      ]),
    ).rejects.toThrow(empty)
    const broken = await write('{"text":\n{"text":"a"}\n')
    await expect(heldOutShare({ paths: [broken], badRows: 'fail' })).rejects.toThrow(`${broken}:1: not valid JSON`)
  })
})

describe('bad rows', () => {
  const content = '{"text":"one"}\n{"text":\n{"txt":"two"}\n[]\n{"text":"three"}\n'

  test('are counted once, with file and line', async () => {
    const path = await write(content)
    const source = await openData(options([path]))
    for (let i = 0; i < 20; i++) await source.next()
    expect(source.report().epoch).toBeGreaterThan(3)
    expect(source.report().badRows).toBe(3)
    expect(source.report().reasons.map(({ rows, first }) => [rows, first.file, first.line])).toEqual([
      [1, path, 2],
      [1, path, 3],
      [1, path, 4],
    ])
    await source.close()
  })

  test('are fatal when asked for', async () => {
    const path = await write(content)
    const source = await openData(options([path], { badRows: 'fail' }))
    await expect(source.next()).rejects.toThrow(UserError)
    await expect(textsOf(options([path], { badRows: 'fail' }))).rejects.toThrow(`${path}:2: not valid JSON`)
    await source.close()
  })

  test('nothing but bad rows is an error that names the first', async () => {
    const path = await jsonl([{ question: 'q' }])
    const source = await openData(options([path]))
    await expect(source.next()).rejects.toThrow(/no usable document in .*1 row left out: no "messages".*jsonl:1/)
    const prompts = await openData(options([await jsonl([{ prompt: 'p'.repeat(99), completion: 'c' }])]))
    await expect(prompts.next()).rejects.toThrow(/the prompt alone fills a row/)
  })
})

test.each<[Partial<DataOptions>, RegExp]>([
  [{ length: 30 }, /length 30 is not a multiple of the block size 4/],
  [{ rows: 0 }, /rows is 0/],
  [{ paths: [] }, /no data/],
  [{ paths: ['nowhere.jsonl'] }, /nowhere\.jsonl: no such file/],
  [{ validationFraction: 1 }, /validationFraction is 1/],
  [{ shuffleBuffer: 0 }, /shuffleBuffer is 0/],
  [{ paths: [{ path: 'x', weight: -1 }] }, /weight -1/],
])('%j is refused', async (more, message) => {
  const path = await jsonl(texts)
  await expect(openData(options([path], more))).rejects.toThrow(UserError)
  await expect(openData(options([path], more))).rejects.toThrow(message)
})
