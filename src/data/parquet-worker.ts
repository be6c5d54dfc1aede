// A worker thread that decodes one Parquet file, a row group each time it is asked. It is a thread because a corrupt
// file can make the decoder loop or allocate without end, and only a thread can be stopped then.
import { parentPort, workerData } from 'node:worker_threads'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

export interface WorkerData {
  path: string
  columns: readonly string[]
}

interface Group {
  rowStart: number
  rows: unknown[]
}

export type Answer = Group | { error: string } | { done: true }

const port = parentPort!
const { path, columns } = workerData as WorkerData

// Larger pages than this are taken for corrupt; writers make pages of about 1 MiB.
const MAX_PAGE_BYTES = 1 << 28

const guarded = Object.fromEntries(
  Object.entries(compressors).map(([codec, decompress]) => [
    codec,
    (input: Uint8Array, outputLength: number): Uint8Array => {
      if (outputLength > MAX_PAGE_BYTES) throw new Error(`a page claims to hold ${outputLength} bytes`)
      return decompress(input, outputLength)
    },
  ]),
)

async function* readGroups(): AsyncGenerator<Group, void> {
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  const present = [...new Set(metadata.row_groups[0]?.columns.map((column) => column.meta_data?.path_in_schema[0]))]
  const wanted = columns.filter((column) => present.includes(column))
  if (wanted.length === 0 && metadata.row_groups.length > 0) {
    throw new Error(`it has none of the columns ${columns.join(', ')}, but ${present.join(', ')}`)
  }
  let rowStart = 0
  for (const group of metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows)
    const options = { file, metadata, compressors: guarded, columns: wanted, rowStart, rowEnd }
    yield { rowStart, rows: await parquetReadObjects(options) }
    rowStart = rowEnd
  }
}

const groups = readGroups()

port.on('message', async () => {
  let answer: Answer
  try {
    const { value } = await groups.next()
    answer = value ?? { done: true }
  } catch (error) {
    answer = { error: error instanceof Error ? error.message : String(error) }
  }
  port.postMessage(answer)
})
