// The metrics of a run as JSON lines. Knows nothing about training.
import { type FileHandle, open, readFile } from 'node:fs/promises'
import type { Metric } from './types.ts'

/** One line of metrics.jsonl. Line 0 holds the state before training; a line has a validation where one was due. */
export interface MetricsRecord {
  /** Updates done. */
  step: number
  /** Clean training tokens seen, each counted once. */
  tokens: number
  block_size: number
  /** Index of the stage in the schedule. */
  stage: number
  loss?: number
  /** Global gradient norm before clipping. */
  grad_norm?: number
  lr?: number
  /**
   * What else the objective reports, by name: `loss_positions`, the positions that carried loss in this step; of masked
   * diffusion `text_loss` and `padding_loss`, what `loss` is on the text and on the EOS padding behind it, each per token of
   * its kind; with `confidence_beta` those of `withConfidence`; of preference pairs rewards, their margin and accuracy, and with
   * `validation_` before the name those of held-out pairs; of mixtures of experts `LoadMetrics` and `router_aux_loss`,
   * which is not part of `loss`.
   */
  [metric: string]: Metric | undefined
  /** Of this step alone: training, without validation and checkpoints. */
  tokens_per_s?: number
  /**
   * Negative ELBO of the held-out text at the target block size, in nats per token, and its standard error over the draws of
   * the noise; for a causal model its NLL.
   */
  nelbo?: number
  nelbo_stderr?: number
  bits_per_byte?: number
  bits_per_byte_stderr?: number
  /** The base model's exact causal NLL on the same text. */
  ar_nll?: number
  ar_bits_per_byte?: number
  /** Resident memory of the process now, and the most it ever was. */
  rss_bytes: number
  peak_rss_bytes: number
  /** Processor energy of the whole run in joules, where the machine has reported all of it. */
  energy_j?: number
  /** Floating-point operations of the updates so far, by `updateFlops`. */
  flops: number
  /** Seconds of the whole run, interruptions not counted. */
  elapsed_s: number
}

export interface MetricsFile {
  /** Numbers that are not finite are left out of the line. */
  append(record: MetricsRecord): Promise<void>
  /** Waits until everything appended is on the disk. */
  flush(): Promise<void>
  close(): Promise<void>
}

/**
 * Opens a metrics file for appending behind step `step`: lines of later steps, which a resumed run writes again, and
 * whatever a crash left behind the last whole line are cut off. -1 for an empty file.
 */
export async function openMetrics(path: string, step: number): Promise<MetricsFile> {
  const handle = await open(path, 'a+')
  try {
    await handle.truncate(await endOfStep(handle, step))
  } catch (error) {
    await handle.close()
    throw error
  }
  return {
    append: async (record) => {
      const line = JSON.stringify(record, (_, value: unknown) => (isNotFinite(value) ? undefined : value))
      await handle.appendFile(`${line}\n`)
    },
    flush: () => handle.sync(),
    close: () => handle.close(),
  }
}

/** Every whole line of a metrics file. A torn last line, of a run that is being written, is left out. */
export async function readMetrics(path: string): Promise<MetricsRecord[]> {
  const records: MetricsRecord[] = []
  for (const line of (await readFile(path, 'utf8')).split('\n')) {
    const record = parseLine(line)
    if (record === undefined) break
    records.push(record)
  }
  return records
}

const isNotFinite = (value: unknown): boolean => typeof value === 'number' && !Number.isFinite(value)

/** Offset in bytes behind the last line that belongs to `step` or an earlier one. */
async function endOfStep(handle: FileHandle, step: number): Promise<number> {
  const bytes = await handle.readFile()
  let end = 0
  while (true) {
    const newline = bytes.indexOf(0x0a, end)
    if (newline < 0) return end
    const record = parseLine(bytes.toString('utf8', end, newline))
    if (record === undefined || record.step > step) return end
    end = newline + 1
  }
}

/** Undefined for anything but a whole record: after a power cut a line may be cut short or hold zeros. */
function parseLine(line: string): MetricsRecord | undefined {
  try {
    const value: unknown = JSON.parse(line)
    const isRecord = typeof value === 'object' && value !== null && 'step' in value && typeof value.step === 'number'
    return isRecord ? (value as MetricsRecord) : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
