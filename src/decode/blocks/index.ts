// Block-diffusion decoding as one state machine: a running set of neighbouring blocks, of which the first leads and the others
// are refined ahead of it, over a cache of what is final. A finished block is stored by the forward that refines the next.
// Which tokens a step commits is a strategy's choice; what a forward is, forward.ts's.
import type { Cache } from '../cache.ts'
import type { Forward } from '../forward.ts'
import { expectedConfirmed, verify } from '../self-verify.ts'
import type { CommittedToken, DecodeStep } from '../types.ts'
import { commitDecision, restrictions } from './commit.ts'
import { layoutOf, nextRows } from './rows.ts'
import { advance, type Block, begin, isFinished, openPositions, type State, settle } from './state.ts'
import type { BlockSettings, Document } from './types.ts'

export type { BlockSettings, Document } from './types.ts'

/** Yields a step after every forward; returns the document's tokens up to its end. The cache may hold a beginning of it. */
export async function* decodeBlocks(
  forward: Forward,
  cache: Cache,
  document: Document,
  settings: BlockSettings,
): AsyncGenerator<DecodeStep, number[], void> {
  const { tracker } = document
  const { predictor, selfVerify } = settings
  const state = begin(document, settings)
  for (let step = 0; ; step++) {
    const active = advance(state)
    const lead = active[0]
    if (!lead) return state.ids.slice(0, state.end)

    const predicted = active
      .filter((block) => !isFinished(state, block))
      .map((block) => ({ block, positions: openPositions(state, block, block === lead) }))
      .filter(({ positions }) => positions.length > 0)
    const result = await runForward(
      state,
      forward,
      cache,
      active,
      predicted.flatMap(({ positions }) => positions),
    )
    tracker?.settle(Math.max(0, lead.start - document.ids.length))

    const tokens: CommittedToken[] = []
    let first = 0
    for (const { block, positions } of predicted) {
      const allowed = tracker && (await restrictions(state, tracker, positions, result.tokens.slice(first)))
      const present = () => state.ids.filter((_, i) => !state.masked.has(i))
      const predictions = predictor.predict(result, first, positions, step, present, allowed)
      first += positions.length
      if (selfVerify !== undefined && block === lead && expectedConfirmed(predictions.confidence) >= selfVerify) {
        yield { step: step++, tokens: [], final: state.finalBefore }
        tokens.push(...(await commitVerified(state, forward, cache, block, positions, predictions.tokens)))
      } else tokens.push(...(await commitDecision(state, block, positions, predictions, block === lead)))
    }
    if (tokens.length === 0 && !lead.again && !isFinished(state, lead))
      throw new Error('the strategy left the leading block as it was')
    settle(state)
    yield { step, tokens, final: state.finalBefore }
  }
}

/** Runs over what is not stored up to the last active block, and predicts `positions`. */
async function runForward(
  state: State,
  forward: Forward,
  cache: Cache,
  active: readonly Block[],
  predicted: readonly number[],
) {
  const { ids, maskShares, stored, settings } = state
  const { predictor, reuse, logitScale, signal } = settings
  // Where the state before a position predicts it.
  const before = settings.shift ? 1 : 0
  // What lies before the leading block is final: the rest of the prompt, or the block before.
  const final = Math.max(0, active[0].start - before)
  const { positions, store } = await nextRows(state, forward, cache, { final, stop: active[active.length - 1].stop })
  const row = new Map(positions.map((position, i) => [position, i]))
  const result = await forward.run(cache, {
    ids: positions.map((i) => ids[i]),
    maskShares: new Map(positions.flatMap((i, index) => (maskShares.has(i) ? [[index, maskShares.get(i)!]] : []))),
    rows: predicted.map((i) => row.get(i - before) as number),
    blockSize: layoutOf(state, positions),
    store,
    logits: predictor.logits,
    logitScale,
    signal,
  })
  if (reuse) for (const i of store) if (positions[i] >= final) stored.add(positions[i])
  return result
}

/** Takes a draft of the leading block as far as a causal forward confirms it; see self-verify.ts. */
async function commitVerified(
  { ids, masked, settings }: State,
  forward: Forward,
  cache: Cache,
  block: Block,
  positions: readonly number[],
  drafted: readonly number[],
): Promise<CommittedToken[]> {
  const { maskTokenId, shift, logitScale, signal } = settings
  const draft = ids.slice()
  for (const [i, position] of positions.entries()) draft[position] = drafted[i]
  const confirmed = await verify(forward, cache, { ids: draft, positions, maskTokenId, shift }, { logitScale, signal })
  for (const { position, token } of confirmed) {
    masked.delete(position)
    ids[position] = token
  }
  block.step++
  return confirmed.map((one) => ({ ...one, block: block.index }))
}
