// Where the decoding of a document stands: its text, what of it is masked, and the running set of blocks.
import type { Decide } from '../types.ts'
import { createPartition, type Partition } from './partition.ts'
import type { BlockSettings, Document } from './types.ts'

export interface Block {
  index: number
  start: number
  stop: number
  step: number
  decide: Decide
  /** The strategy wants another step although nothing is masked. */
  again: boolean
}

export interface State {
  readonly document: Document
  readonly settings: BlockSettings
  readonly partition: Partition
  /** The text so far; where it is masked it holds the mask. */
  readonly ids: number[]
  readonly masked: Set<number>
  /** Neighbouring blocks that are refined, of which the first leads. */
  readonly running: Block[]
  /** The block that joins them next. */
  next: number
  /** Positions up to here are asked for: an EOS that the model wrote brings it forward. */
  end: number
  /** Every position before this one is final. */
  finalBefore: number
  /** Positions whose embedding is a mixture of their token's and the mask's: the share of the mask. */
  readonly maskShares: Map<number, number>
  /** Positions behind the final part whose keys and values are in the cache, with `reuse`. */
  readonly stored: Set<number>
}

export function begin(document: Document, settings: BlockSettings): State {
  const ids = [...document.ids]
  const masked = new Set(document.holes)
  for (const i of masked) ids[i] = settings.maskTokenId
  const partition = createPartition(document.blocks, document.most)
  const first = firstOpen(document, settings)
  return {
    document,
    settings,
    partition,
    ids,
    masked,
    running: [],
    next: partition.blockAt(first),
    end: document.end,
    finalBefore: first,
    maskShares: new Map(),
    stored: new Set(),
  }
}

/** The first position that decoding may change. */
function firstOpen({ ids, holes = new Set(), editableFrom }: Document, { strategy }: BlockSettings): number {
  let first = ids.length
  if (strategy.edits && editableFrom !== undefined) first = Math.min(first, editableFrom)
  for (const i of holes) first = Math.min(first, i)
  return first
}

export const isMasked = ({ ids, masked }: State, i: number): boolean => i >= ids.length || masked.has(i)

export function isFinished(state: State, block: Block): boolean {
  if (block.again) return false
  for (let i = block.start; i < Math.min(block.stop, state.end); i++) if (isMasked(state, i)) return false
  return true
}

/** Takes finished blocks out of the running set and lets those join that may; returns the blocks that are asked for. */
export function advance(state: State): Block[] {
  const { running, partition, settings } = state
  const finished = running.findIndex((block) => !isFinished(state, block))
  running.splice(0, finished === -1 ? running.length : finished)
  while (running.length < settings.bufferSize && partition.start(state.next) < state.end) {
    const last = running[running.length - 1]
    if (last && filledShare(state, last) < settings.activation) break
    const block = open(state, state.next++)
    // Nothing to do in it: it is stored with what comes before the leading block.
    if (running.length > 0 || !isFinished(state, block)) running.push(block)
  }
  return running.filter(({ start }) => start < state.end)
}

function filledShare(state: State, { start, stop }: Block): number {
  let count = 0
  for (let i = start; i < stop; i++) if (!isMasked(state, i)) count++
  return count / (stop - start)
}

function open(state: State, index: number): Block {
  const { document, settings, partition, ids, masked } = state
  const [start, stop] = [partition.start(index), partition.start(index + 1)]
  for (let i = ids.length; i < stop; i++) {
    ids.push(settings.maskTokenId)
    masked.add(i)
  }
  const { tracker } = document
  tracker?.open(stop - document.ids.length - tracker.length)
  const again = settings.strategy.edits === true && hasEditable(state, start, stop)
  return { index, start, stop, step: 0, decide: settings.strategy.begin(), again }
}

/** Whether given tokens of a range may be edited. */
function hasEditable({ document, masked }: State, start: number, stop: number): boolean {
  const { ids, editableFrom = Number.POSITIVE_INFINITY } = document
  for (let i = Math.max(start, editableFrom); i < Math.min(stop, ids.length); i++) if (!masked.has(i)) return true
  return false
}

/** Positions of a block that are predicted: those that an earlier token predicts may wait for it. */
export function openPositions({ document, settings, masked }: State, block: Block, leading: boolean): number[] {
  const { ids, holes, editableFrom = Number.POSITIVE_INFINITY } = document
  const editable = (i: number) =>
    settings.strategy.edits === true && (i >= Math.min(ids.length, editableFrom) || holes?.has(i) === true)
  const positions: number[] = []
  for (let i = block.start; i < block.stop; i++) {
    if (!masked.has(i) && !editable(i)) continue
    if (settings.waits && !leading && i === block.start && masked.has(i - 1)) continue
    positions.push(i)
  }
  return positions
}

/** Notes, after a step, where the text ends and how much of it is final. */
export function settle(state: State): void {
  state.end = endOfText(state)
  state.finalBefore = Math.max(state.finalBefore, finalEnd(state))
}

/** Behind an EOS that the model wrote; one that was given is text like any other. */
function endOfText({ document, ids, masked, running }: State): number {
  const isOpen = (i: number) => i >= document.ids.length || document.holes?.has(i)
  for (let i = running[0]?.start ?? 0; i < Math.min(ids.length, document.end); i++)
    if (isOpen(i) && !masked.has(i) && document.eosTokenIds.includes(ids[i])) return i + 1
  return document.end
}

function finalEnd(state: State): number {
  const { running, partition, settings, next, end } = state
  const first = running.find((block) => block.start < end && !isFinished(state, block))
  if (!first && partition.start(next) >= end) return end
  const start = first?.start ?? partition.start(next)
  if (settings.strategy.edits) return Math.min(end, start)
  let i = start
  while (i < end && !isMasked(state, i)) i++
  return i
}
