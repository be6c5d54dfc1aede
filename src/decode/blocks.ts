// Block-diffusion decoding as one state machine: a running set of neighbouring blocks, of which the first leads and the others
// are refined ahead of it, over a cache of what is final. A finished block is stored by the forward that refines the next.
// Which tokens a step commits is a strategy's choice; what a forward is, forward.ts's.
import type { Cache } from './cache.ts'
import type { Tracker } from './constraints/index.ts'
import type { Forward, ForwardRequest } from './forward.ts'
import type { Predictor } from './predict.ts'
import { expectedConfirmed, verify } from './self-verify.ts'
import type { CommittedToken, Decide, DecodeStep, Predictions, Strategy } from './types.ts'

/** What is decoded. */
export interface Document {
  /** Tokens that are given; behind them all is masked. At `holes` the value does not matter. */
  ids: readonly number[]
  /** Given positions that are masked too. Default: none. */
  holes?: ReadonlySet<number>
  /** Given positions from here on may be edited by strategies that edit. Default: none. */
  editableFrom?: number
  /** One past the last position that is asked for. */
  end: number
  /** Blocks are decoded up to their end, but not beyond this position: the model's last. */
  most: number
  /** Blocks start at multiples of it; or where each block starts, ascending from 0, if they differ. */
  blocks: number | readonly number[]
  /** Tokens that end the text where the model writes them. */
  eosTokenIds: readonly number[]
  /** Which tokens the positions behind `ids` may have; its first position is that of the first such one. Default: any. */
  tracker?: Tracker
}

export interface BlockSettings {
  strategy: Strategy
  predictor: Predictor
  maskTokenId: number
  /** The state at i - 1 predicts token i. */
  shift: boolean
  /** Most blocks in the running set; 1 is plain block decoding. */
  bufferSize: number
  /** A block joins the running set when this share of the one before it is filled. */
  activation: number
  /**
   * Tokens keep the keys and values of the forward that first had them until their block is finished, and are no rows of
   * later forwards: fewer rows, at some cost in quality. Keys and values of finished blocks are exact either way.
   */
  reuse: boolean
  /**
   * A second forward checks the leading block's draft when at least this many tokens are expected to be accepted, and the
   * strategy decides elsewhere; see self-verify.ts. Undefined: never.
   */
  selfVerify?: number
  logitScale?: number
  signal?: AbortSignal
}

interface Block {
  index: number
  start: number
  stop: number
  step: number
  decide: Decide
  /** The strategy wants another step although nothing is masked. */
  again: boolean
}

/** Yields a step after every forward; returns the document's tokens up to its end. The cache may hold a beginning of it. */
export async function* decodeBlocks(
  forward: Forward,
  cache: Cache,
  document: Document,
  settings: BlockSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { holes = new Set(), editableFrom = Number.POSITIVE_INFINITY, most, eosTokenIds, tracker } = document
  const { strategy, predictor, maskTokenId, shift, bufferSize, activation, reuse, selfVerify } = settings
  const { logitScale, signal } = settings
  const given = document.ids.length
  const ids = [...document.ids]
  const masked = new Set<number>(holes)
  for (const i of masked) ids[i] = maskTokenId
  const before = shift ? 1 : 0
  const partition = createPartition(document.blocks, most)
  const editable = (i: number) => strategy.edits === true && (i >= Math.min(given, editableFrom) || holes.has(i))
  const isMasked = (i: number) => i >= ids.length || masked.has(i)
  // Positions up to here are asked for: an EOS that the model wrote brings it forward.
  let end = document.end
  let next = partition.blockAt(firstOpen())
  let finalBefore = firstOpen()
  const running: Block[] = []
  /** Positions whose embedding is a mixture of their token's and the mask's: the share of the mask. */
  const maskShares = new Map<number, number>()
  /** Positions behind the final part whose keys and values are in the cache, with `reuse`. */
  const stored = new Set<number>()

  const filledShare = ({ start, stop }: Block) => {
    let count = 0
    for (let i = start; i < stop; i++) if (!isMasked(i)) count++
    return count / (stop - start)
  }
  const isFinished = (block: Block) => {
    if (block.again) return false
    for (let i = block.start; i < Math.min(block.stop, end); i++) if (isMasked(i)) return false
    return true
  }

  for (let step = 0; ; step++) {
    const finished = running.findIndex((block) => !isFinished(block))
    running.splice(0, finished === -1 ? running.length : finished)
    while (running.length < bufferSize && partition.start(next) < end) {
      const last = running[running.length - 1]
      if (last && filledShare(last) < activation) break
      const block = open(next++)
      // Nothing to do in it: it is stored with what comes before the leading block.
      if (running.length > 0 || !isFinished(block)) running.push(block)
    }
    const active = running.filter(({ start }) => start < end)
    const lead = active[0]
    if (!lead) break

    // What lies before the leading block is final: the rest of the prompt, or the block before.
    const final = Math.max(0, lead.start - before)
    const predicted = active
      .filter((block) => !isFinished(block))
      .map((block) => ({ block, positions: openPositions(block, block === lead) }))
      .filter(({ positions }) => positions.length > 0)
    const { positions, store } = await nextRows(final, active[active.length - 1].stop)
    const row = new Map(positions.map((position, i) => [position, i]))
    const rows = predicted.flatMap(({ positions }) => positions.map((i) => row.get(i - before) as number))
    const request = {
      ids: positions.map((i) => ids[i]),
      maskShares: new Map(positions.flatMap((i, index) => (maskShares.has(i) ? [[index, maskShares.get(i)!]] : []))),
      rows,
      blockSize: layout(positions),
      store,
      logits: predictor.logits,
      ...(logitScale === undefined ? {} : { logitScale }),
      ...(signal ? { signal } : {}),
    }
    const result = await forward.run(cache, request)
    if (reuse) for (const i of store) if (positions[i] >= final) stored.add(positions[i])
    tracker?.settle(Math.max(0, lead.start - given))

    const tokens: CommittedToken[] = []
    let first = 0
    for (const { block, positions } of predicted) {
      const allowed = tracker && restrictions(tracker, positions, result.tokens.slice(first))
      const predictions = predictor.predict(result, first, positions, step, presentTokens, allowed)
      first += positions.length
      if (selfVerify !== undefined && block === lead && expectedConfirmed(predictions.confidence) >= selfVerify) {
        const draft = ids.slice()
        for (const [i, position] of positions.entries()) draft[position] = predictions.tokens[i]
        const common = { ...(logitScale === undefined ? {} : { logitScale }), ...(signal ? { signal } : {}) }
        yield { step: step++, tokens: [], final: finalBefore }
        for (const one of await verify(forward, cache, { ids: draft, positions, maskTokenId, shift }, common)) {
          masked.delete(one.position)
          ids[one.position] = one.token
          tokens.push({ ...one, block: block.index })
        }
        block.step++
        continue
      }
      const decision = block.decide(
        {
          step: block.step++,
          size: block.stop - block.start,
          open: positions.map((i) => i - block.start),
          current: positions.map((i) => (masked.has(i) ? undefined : ids[i])),
          leading: block === lead,
        },
        predictions,
      )
      block.again = decision.again ?? false
      const tokenOf = (i: number) => decision.tokens?.get(i) ?? predictions.tokens[i]
      const commit = tracker
        ? possible(tracker, decision.commit, predictions, (i) => [positions[i], tokenOf(i)])
        : decision.commit
      for (const i of commit) {
        const position = positions[i]
        const token = tokenOf(i)
        const edited = !masked.delete(position)
        ids[position] = token
        const details = predictions.details(i, token)
        tokens.push({ position, token, block: block.index, ...details, ...(edited ? { edited } : {}) })
      }
      for (const position of positions) maskShares.delete(position)
      // A constraint may have kept a position from its predicted token.
      for (const [i, share] of decision.soft ?? [])
        if (!masked.has(positions[i]) && ids[positions[i]] === tokenOf(i)) maskShares.set(positions[i], 1 - share)
    }
    if (tokens.length === 0 && !lead.again && !isFinished(lead))
      throw new Error('the strategy left the leading block as it was')
    end = endOfText()
    finalBefore = Math.max(finalBefore, finalEnd())
    yield { step, tokens, final: finalBefore }
  }
  return ids.slice(0, end)

  function open(index: number): Block {
    const [start, stop] = [partition.start(index), partition.start(index + 1)]
    for (let i = ids.length; i < stop; i++) {
      ids.push(maskTokenId)
      masked.add(i)
    }
    tracker?.open(stop - given - tracker.length)
    const again = strategy.edits === true && hasEditable(start, stop)
    return { index, start, stop, step: 0, decide: strategy.begin(), again }
  }

  function hasEditable(start: number, stop: number): boolean {
    for (let i = Math.max(start, editableFrom); i < Math.min(stop, given); i++) if (!masked.has(i)) return true
    return false
  }

  function firstOpen(): number {
    let first = Math.min(given, ...(strategy.edits ? [editableFrom] : []))
    for (const i of holes) first = Math.min(first, i)
    return first
  }

  /** Positions of a block that are predicted: without an earlier token that predicts them they wait. */
  function openPositions({ start, stop }: Block, leading: boolean): number[] {
    const positions: number[] = []
    for (let i = start; i < stop; i++) {
      if (!masked.has(i) && !editable(i)) continue
      if (shift && !leading && i === start && masked.has(i - 1)) continue
      positions.push(i)
    }
    return positions
  }

  /** The positions that the next forward runs over, up to `stop`, and which of them, by index, it stores. */
  async function nextRows(final: number, stop: number): Promise<{ positions: number[]; store: number[] }> {
    if (reuse && cache.length - stored.size < final && stored.size > 0) {
      // The leading block is finished: its keys and values are computed again, now that all of it is known.
      cache.truncate(cache.length - stored.size)
      stored.clear()
    }
    for (let start = cache.length - stored.size; final - start > PREFILL; ) {
      const cut = partition.boundary(start, PREFILL)
      if (cut > final) break
      const positions = range(start, cut)
      const request = { ids: ids.slice(start, cut), blockSize: layout(positions), rows: [], store: cut - start }
      await forward.run(cache, signal ? { ...request, signal } : request)
      start = cut
    }
    const positions = range(cache.length - stored.size, stop).filter((i) => !stored.has(i))
    const isStored = (i: number) =>
      i < final || (reuse && !masked.has(i) && !(shift && i + 1 < stop && masked.has(i + 1)) && i >= final + before)
    return { positions, store: positions.flatMap((position, i) => (isStored(position) ? [i] : [])) }
  }

  function layout(positions: readonly number[]): ForwardRequest['blockSize'] {
    if (typeof document.blocks === 'number' && !reuse) return document.blocks
    return { positions, blocks: positions.map(partition.blockAt) }
  }

  /** An EOS that the model wrote; one that was given is text like any other. */
  function endOfText(): number {
    const start = running[0]?.start ?? 0
    for (let i = Math.max(start, 0); i < Math.min(ids.length, document.end); i++)
      if ((i >= given || holes.has(i)) && !masked.has(i) && eosTokenIds.includes(ids[i])) return i + 1
    return document.end
  }

  function finalEnd(): number {
    const active = running.filter((block) => block.start < end && !isFinished(block))
    if (active.length === 0 && partition.start(next) >= end) return end
    if (strategy.edits) return Math.min(end, active[0]?.start ?? partition.start(next))
    let i = active[0]?.start ?? partition.start(next)
    while (i < end && !isMasked(i)) i++
    return i
  }

  /** What positions may hold, given what the model would put there. */
  function restrictions(tracker: Tracker, positions: readonly number[], wanted: readonly number[]) {
    for (const [i, position] of positions.entries()) tracker.suggest(position - given, wanted[i])
    const hole = positions.findIndex((position) => masked.has(position))
    return (i: number) => ({
      tokens: tracker.allowed(positions[i] - given),
      leading: i === hole && !ids.slice(given, positions[i]).includes(maskTokenId),
    })
  }

  /**
   * Those of a decision, the surest first, that the constraint allows together. The first fits, since each was predicted
   * among what is allowed; masks come before edits, so that one is filled where the strategy fills any.
   */
  function possible(
    tracker: Tracker,
    wanted: readonly number[],
    { confidence }: Predictions,
    choice: (i: number) => readonly [position: number, token: number],
  ): number[] {
    const put = (i: number) => {
      const [position, token] = choice(i)
      return tracker.commit(position - given, token)
    }
    const edits = (i: number) => Number(!masked.has(choice(i)[0]))
    const order = [...wanted].sort((a, b) => edits(a) - edits(b) || confidence[b] - confidence[a] || a - b)
    return order.filter(put).sort((a, b) => a - b)
  }

  function presentTokens(): number[] {
    return ids.filter((_, i) => !masked.has(i))
  }
}

/** Positions per forward over a prompt: longer prompts are cached in parts, so that attention scores stay small. */
export const PREFILL = 512

interface Partition {
  /** Where a block starts; the one behind the last is the end of all. */
  start(index: number): number
  blockAt(position: number): number
  /** The last start of a block that is at most `length` behind `position`, or else the first one. */
  boundary(position: number, length: number): number
}

function createPartition(blocks: Document['blocks'], most: number): Partition {
  if (typeof blocks === 'number')
    return {
      start: (index) => Math.min(index * blocks, most),
      blockAt: (position) => Math.floor(position / blocks),
      boundary: (position, length) =>
        Math.max(Math.floor((position + length) / blocks), Math.floor(position / blocks) + 1) * blocks,
    }
  return {
    start: (index) => blocks[index] ?? most,
    blockAt(position) {
      let index = blocks.length - 1
      while (index > 0 && blocks[index] > position) index--
      return index
    },
    boundary(position, length) {
      const later = [...blocks, most].filter((start) => start > position)
      return later.filter((start) => start <= position + length).at(-1) ?? later[0]
    },
  }
}

const range = (start: number, end: number): number[] =>
  Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i)
