// Reads the rows of a Parquet file through a worker thread that is stopped where the file leads it astray.
import type { Worker } from 'node:worker_threads'
import { startThread } from '../threads/start.ts'
import type { Answer, WorkerData } from './parquet-worker.ts'
import type { Row } from './rows.ts'

// A thread may use this much memory, and this long for a row group, and then more for each byte of the file.
const HEAP_MB = 512
const MAX_HEAP_MB = 4096
const PATIENCE_MS = 20_000
const PATIENCE_MS_PER_MB = 1000

/**
 * Rows as objects holding those of `columns` that the file has, one row group in memory at a time. A file, or the rest
 * of one, that cannot be decoded gives one row with the error. `size` is the file's, in bytes;
 * a row group may take `patienceMs`.
 */
export async function* readParquet(
  path: string,
  size: number,
  columns: readonly string[],
  patienceMs = PATIENCE_MS + (PATIENCE_MS_PER_MB * size) / 2 ** 20,
): AsyncGenerator<Row, void> {
  const worker = startThread(new URL('./parquet-worker.ts', import.meta.url), {
    workerData: { path, columns } satisfies WorkerData,
    resourceLimits: { maxOldGenerationSizeMb: Math.min(MAX_HEAP_MB, HEAP_MB + (8 * size) / 2 ** 20) },
  })
  let line = 1
  try {
    for (;;) {
      const answer = await ask(worker, patienceMs)
      if ('done' in answer) return
      if ('error' in answer) return yield { line, error: `not readable as Parquet: ${answer.error}` }
      for (const value of answer.rows) yield { line: line++, value }
    }
  } finally {
    await worker.terminate()
  }
}

function ask(worker: Worker, patience: number): Promise<Answer> {
  return new Promise((resolve) => {
    const timer = setTimeout(
      () => finish({ error: `a row group took longer than ${Math.round(patience / 1000)} s` }),
      patience,
    )
    const onError = (error: Error) => finish({ error: error.message })
    function finish(answer: Answer): void {
      clearTimeout(timer)
      worker.off('message', finish)
      worker.off('error', onError)
      resolve(answer)
    }
    worker.on('message', finish)
    worker.on('error', onError)
    worker.postMessage('next')
  })
}
