// Data augmentation: masks spans of a text field and lets a diffusion model fill them again. Labels and every other field stay
// as they are; what comes out twice, unchanged or too near to held-out data is left out.
import { writeAtomically } from '../checkpoint/file.ts'
import { claimOutput } from '../checkpoint/index.ts'
import { loadForInference } from '../checkpoint/load.ts'
import { random } from '../core/random.ts'
import { SettingError, UserError } from '../core/types.ts'
import { findFiles } from '../data/files.ts'
import { readRows } from '../data/rows.ts'
import type { BlockOptions } from '../decode/index.ts'
import { complete } from '../decode/index.ts'
import { checkSettings, givenSettings } from '../decode/settings.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { createGenerator } from '../text/generator.ts'
import { encodeTexts } from '../text/holes.ts'
import { textOf } from '../tokenizer/stream.ts'

export interface AugmentOptions {
  /** Diffusion model; see `pull`. */
  model: string
  /** A .jsonl file, a folder or a glob of objects. */
  data: string
  /** File to write: the new rows alone, in the order of the data. */
  out: string
  /** Replace a file that exists. Data, held-out data and the model are never replaced. Default false. */
  force?: boolean
  /** Field whose text is varied. Default `text`. */
  field?: string
  /** Share of a text's tokens that is masked, in (0, 1). Default 0.15. */
  maskRatio?: number
  /** Mean tokens of a masked span; lengths are geometric. Default 3. */
  span?: number
  /** New rows per row, at most. Default 1. */
  n?: number
  /** Files of rows that nothing may leak from or into: their texts are neither varied nor come near to. */
  heldOut?: readonly string[]
  /** A row that shares this many words in a row with held-out data is a leak; shorter texts, if they are equal. Default 8. */
  leakWords?: number
  /** Default 0. */
  seed?: number
  /** Default 1: the most probable filling is often the old one. */
  temperature?: number
  topP?: number
  threshold?: number
  threads?: number
  signal?: AbortSignal
  onEvent?: (event: { rows: number; written: number }) => void
}

export interface AugmentResult {
  out: string
  /** Rows read, and those that were written. */
  rows: number
  written: number
  /** Rows that could not be used: no object, no text in the field, too short or too long. */
  unusable: number
  /** Rows of the data that held-out data has too. */
  heldOut: number
  /** New rows that were left out. */
  unchanged: number
  duplicates: number
  leaks: number
}

/** Times that a filling is drawn anew where it gave nothing new. */
const TRIES = 3
/** Rows that are worked on at the same time. */
const AT_ONCE = 8
const SPANS = 91

/**
 * Varies rows. Throws UserError for settings that make no sense, a model without a mask token, no data, or an output that
 * exists or is an input.
 */
export async function augment(options: AugmentOptions): Promise<AugmentResult> {
  const { field = 'text', maskRatio = 0.15, span = 3, n = 1, seed = 0, temperature = 1, leakWords = 8 } = options
  const { signal } = options
  if (!(maskRatio > 0 && maskRatio < 1))
    throw new SettingError('maskRatio', `expected a number between 0 and 1, not ${maskRatio}`)
  if (!(span >= 1)) throw new SettingError('span', `expected a number of at least 1, not ${span}`)
  if (!Number.isSafeInteger(n) || n < 1 || n > 1000)
    throw new SettingError('n', `expected a whole number from 1 to 1000, not ${n}`)
  if (!Number.isSafeInteger(leakWords) || leakWords < 1)
    throw new SettingError('leakWords', `expected a whole number of at least 1, not ${leakWords}`)
  checkSettings(givenSettings({ temperature, topP: options.topP, threshold: options.threshold }))
  await claimOutput(options.out, { inputs: await inputsOf(options), force: options.force })
  const leaks = await heldOutTexts(options.heldOut ?? [], field, leakWords)
  const result: AugmentResult = {
    ...{ out: options.out, rows: 0, written: 0, unusable: 0, heldOut: 0, unchanged: 0, duplicates: 0, leaks: 0 },
  }

  const loaded = await loadForInference(options.model, { signal })
  const executor = createExecutor({ threads: options.threads })
  try {
    const generator = await createGenerator(executor, loaded)
    const { maskTokenId, blockSize } = generator
    if (maskTokenId === undefined || generator.mode !== 'diffusion')
      throw new UserError('augmenting needs a diffusion model: convert this one first')
    const { tokenizer } = loaded
    const { maxPositions } = loaded.model.dimensions
    const settings: Omit<BlockOptions, 'maxNewTokens'> = {
      ...{ blockSize, temperature, topP: options.topP, threshold: options.threshold, signal },
    }

    /** Up to `n` texts; undefined for those that came out as they went in. */
    async function vary(text: string, row: number): Promise<(string | undefined)[] | undefined> {
      const { begin, parts } = encodeTexts([text], tokenizer)
      const ids = parts[0]!
      if (ids.length < 2 || begin.length + ids.length > maxPositions) return undefined
      const made: (string | undefined)[] = []
      for (let copy = 0; copy < n; copy++) {
        let found: string | undefined
        for (let attempt = 0; attempt < TRIES && found === undefined; attempt++) {
          const draws = [row, copy, attempt]
          const holes = maskSpans(ids.length, maskRatio, span, random(seed, SPANS, ...draws))
          const masked = ids.map((id, i) => (holes.has(i) ? (maskTokenId as number) : id))
          const fillSeed = random(seed, SPANS + 1, ...draws).uint32()
          const { ids: filled } = await complete(generator.fill([...begin, ...masked], { ...settings, seed: fillSeed }))
          const varied = textOf(tokenizer, filled)
          // Bytes that are no character were no good filling either.
          if (normal(varied) !== normal(text) && !made.includes(varied) && !varied.includes('\ufffd')) found = varied
        }
        made.push(found)
      }
      return made
    }

    await writeAtomically(options.out, async (sink) => {
      const seen = new Set<string>()
      let batch: { row: Record<string, unknown>; text: string; index: number }[] = []

      async function flush(): Promise<void> {
        const varied = await Promise.all(batch.map(({ text, index }) => vary(text, index)))
        for (const [i, { row, text }] of batch.entries()) {
          // The old texts count before the new ones.
          seen.add(keyOf(row, field, text))
          for (const made of varied[i] ?? []) {
            if (made === undefined) result.unchanged++
            else if (seen.has(keyOf(row, field, made))) result.duplicates++
            else if (leaks.near(made)) result.leaks++
            else {
              seen.add(keyOf(row, field, made))
              result.written++
              await sink(new TextEncoder().encode(`${JSON.stringify({ ...row, [field]: made })}\n`))
            }
          }
          if (varied[i] === undefined) result.unusable++
        }
        batch = []
        options.onEvent?.({ rows: result.rows, written: result.written })
      }

      for (const file of await findFiles(options.data)) {
        if (file.format !== 'jsonl') throw new UserError(`${file.path}: rows to vary are read from .jsonl files`)
        for await (const read of readRows(file, [])) {
          signal?.throwIfAborted()
          const index = result.rows++
          const row = 'value' in read ? read.value : undefined
          const text = isObject(row) ? row[field] : undefined
          if (!isObject(row) || typeof text !== 'string' || text.trim() === '') result.unusable++
          else if (leaks.near(text)) result.heldOut++
          else batch.push({ row, text, index })
          if (batch.length === AT_ONCE) await flush()
        }
      }
      await flush()
      if (result.rows === result.unusable)
        throw new UserError(`${options.data}: no row has a text in the field ${JSON.stringify(field)}`)
    })
  } finally {
    await executor.dispose()
  }
  return result
}

/** Everything that is read: what is named, and the files that folders and globs stand for. */
async function inputsOf({ model, data, heldOut = [] }: AugmentOptions): Promise<string[]> {
  const files = await Promise.all([data, ...heldOut].map(findFiles))
  return [model, data, ...heldOut, ...files.flat().map(({ path }) => path)]
}

/**
 * Positions to mask: spans of geometric length around the mean, until the share is reached. The first token stays, since a
 * model that predicts each token from the one before could not fill it.
 */
export function maskSpans(
  length: number,
  ratio: number,
  mean: number,
  { uniform }: { uniform(): number },
): Set<number> {
  const wanted = Math.min(length - 1, Math.max(1, Math.round(ratio * length)))
  const holes = new Set<number>()
  while (holes.size < wanted) {
    const size = mean <= 1 ? 1 : 1 + Math.floor(Math.log(1 - uniform()) / Math.log(1 - 1 / mean))
    const start = 1 + Math.floor(uniform() * (length - 1))
    for (let i = start; i < Math.min(length, start + size) && holes.size < wanted; i++) holes.add(i)
  }
  return holes
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A text as it is compared: without regard to case, marks and spacing. */
const normal = (text: string): string =>
  text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim()

/** What makes two rows the same: the text, with the same labels. */
const keyOf = (row: Record<string, unknown>, field: string, text: string): string => {
  const { [field]: _, ...labels } = row
  return JSON.stringify([normal(text), labels])
}

/** Held-out texts, by every run of `count` words; shorter ones as a whole. */
async function heldOutTexts(sources: readonly string[], field: string, count: number) {
  const known = new Set<string>()
  const runs = (text: string): string[] => {
    const words = normal(text).split(' ')
    if (words.length <= count) return [`=${words.join(' ')}`]
    return Array.from({ length: words.length - count + 1 }, (_, i) => words.slice(i, i + count).join(' '))
  }
  for (const source of sources)
    for (const file of await findFiles(source)) {
      if (file.format !== 'jsonl') throw new UserError(`${file.path}: held-out rows are read from .jsonl files`)
      for await (const read of readRows(file, [])) {
        const text = 'value' in read && isObject(read.value) ? read.value[field] : undefined
        if (typeof text === 'string') for (const run of runs(text)) known.add(run)
      }
    }
  return { near: (text: string) => known.size > 0 && runs(text).some((run) => known.has(run)) }
}
