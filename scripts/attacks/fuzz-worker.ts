// The thread in which damaged files are read, so that one that hangs or needs too much memory can be told and stopped.
import { parentPort, workerData } from 'node:worker_threads'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { createParsers } from './parsers.ts'

export interface FuzzData {
  folder: string
  seed: number
  from: number
  to: number
  parser: string | undefined
  /** Files between two signs. */
  every: number
}

/** `begin` every `every` files, and of each file that is slow or wrong what happened; `done` at the end. */
export type FuzzMessage =
  | { kind: 'begin'; index: number; counts: Record<string, Counts> }
  | { kind: 'fault'; index: number; parser: string; what: string }
  | { kind: 'done'; counts: Record<string, Counts> }

export interface Counts {
  read: number
  refused: number
  /** Longest time of the processor for a file, in ms; most bytes in buffers that a file left, beyond its size. */
  slowest: number
  largest: number
}

const { folder, seed, from, to, parser: only, every } = workerData as FuzzData
const send = (message: FuzzMessage) => parentPort!.postMessage(message)
const parsers = (await createParsers(folder)).filter(({ name }) => only === undefined || name === only)
const counts: Record<string, Counts> = Object.fromEntries(
  parsers.map(({ name }) => [name, { read: 0, refused: 0, slowest: 0, largest: 0 }]),
)
const shares = parsers.flatMap((parser) => Array.from({ length: Math.round(3000 / parser.every) }, () => parser))

for (let index = from; index < to; index++) {
  if (index % every === 0) send({ kind: 'begin', index, counts })
  const draw = random(seed, index)
  const parser = shares[draw.integer(shares.length)]!
  const entry = counts[parser.name]!
  const buffers = process.memoryUsage().arrayBuffers
  const begun = process.cpuUsage()
  let size = 0
  try {
    size = await parser.attempt(draw)
    entry.read++
  } catch (error) {
    if (error instanceof UserError) entry.refused++
    else
      send({
        kind: 'fault',
        index,
        parser: parser.name,
        what: String(error instanceof Error ? error.stack : error).slice(0, 600),
      })
  }
  const { user, system } = process.cpuUsage(begun)
  entry.slowest = Math.max(entry.slowest, (user + system) / 1000)
  entry.largest = Math.max(entry.largest, process.memoryUsage().arrayBuffers - buffers - size)
}
send({ kind: 'done', counts })
