// A step of a block: the strategy's decision, as far as a constraint allows it, written into the text.
import type { Tracker } from '../constraints/index.ts'
import type { Allowed, Predictor } from '../predict.ts'
import type { CommittedToken, Predictions } from '../types.ts'
import type { Block, State } from './state.ts'

/** Lets a block's strategy decide about its open `positions`, and returns what it committed. */
export async function commitDecision(
  state: State,
  block: Block,
  positions: readonly number[],
  predictions: ReturnType<Predictor['predict']>,
  leading: boolean,
): Promise<CommittedToken[]> {
  const { ids, masked, maskShares } = state
  const { tracker } = state.document
  const decision = block.decide(
    {
      step: block.step++,
      size: block.stop - block.start,
      open: positions.map((i) => i - block.start),
      current: positions.map((i) => (masked.has(i) ? undefined : ids[i])),
      leading,
    },
    predictions,
  )
  block.again = decision.again ?? false
  const tokenOf = (i: number) => decision.tokens?.get(i) ?? predictions.tokens[i]
  const commit = tracker
    ? await possible(state, tracker, decision.commit, predictions, (i) => [positions[i], tokenOf(i)])
    : decision.commit
  const tokens: CommittedToken[] = []
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
  return tokens
}

/** What positions may hold, given what the model would put there. */
export async function restrictions(
  { document, ids, masked, settings }: State,
  tracker: Tracker,
  positions: readonly number[],
  wanted: readonly number[],
): Promise<(index: number) => Allowed> {
  const given = document.ids.length
  for (const [i, position] of positions.entries()) tracker.suggest(position - given, wanted[i])
  const allowed: Uint32Array[] = []
  for (const position of positions) allowed.push(await tracker.inTurns(() => tracker.allowed(position - given)))
  const hole = positions.findIndex((position) => masked.has(position))
  return (i) => ({
    tokens: allowed[i],
    leading: i === hole && !ids.slice(given, positions[i]).includes(settings.maskTokenId),
  })
}

/**
 * Those of a decision, the surest first, that the constraint allows together. The first fits, since each was predicted
 * among what is allowed; masks come before edits, so that one is filled where the strategy fills any.
 */
async function possible(
  { document, masked }: State,
  tracker: Tracker,
  wanted: readonly number[],
  { confidence }: Predictions,
  choice: (i: number) => readonly [position: number, token: number],
): Promise<number[]> {
  const put = (i: number) => {
    const [position, token] = choice(i)
    return tracker.inTurns(() => tracker.commit(position - document.ids.length, token))
  }
  const edits = (i: number) => Number(!masked.has(choice(i)[0]))
  const order = [...wanted].sort((a, b) => edits(a) - edits(b) || confidence[b] - confidence[a] || a - b)
  const fitting: number[] = []
  for (const i of order) if (await put(i)) fitting.push(i)
  return fitting.sort((a, b) => a - b)
}
