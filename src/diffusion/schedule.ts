// Block size over the training budget: warmup-stable-decay, constant, or an explicit list, as plain data.
// Knows nothing about models, learning rates or how a stage is trained.
import { UserError } from '../core/types.ts'

/** One stage of the block-size schedule. */
export interface Stage {
  /** Block size; equal to or larger than the row length means MDLM (no clean copy). */
  blockSize: number
  /** Training tokens (clean tokens, each counted once) given to the stage. */
  tokens: number
}

/** Shares of the token budget; any positive scale, they are normalised by their sum. */
export interface PhaseShares {
  warmup: number
  stable: number
  decay: number
}

export interface WsdOptions {
  /** Row length L in tokens: the block size at which the objective is MDLM. */
  length: number
  finalBlockSize: number
  totalTokens: number
  /** Block sizes of the warmup; those that do not divide L, or are not smaller than it, are left out. Default 1, 4, 32, 64. */
  warmup?: readonly number[]
  /** Default 0.2, 0.3, 0.5. */
  shares?: PhaseShares
}

/** The sources publish no token counts per phase; these defaults give decoding's block size a quarter of the budget. */
const defaultShares: PhaseShares = { warmup: 0.2, stable: 0.3, decay: 0.5 }
const defaultWarmup: readonly number[] = [1, 4, 32, 64]

/**
 * Warmup-stable-decay of block sizes (LLaDA2.0, section 4.1): 1, 4, 32, 64, L | L | L, L/2, L/4 ... final.
 * The steps at L before and after the stable phase are the stable phase, so they appear as one stage. A phase's share is
 * split evenly over its sizes, except that the final size receives half of the decay phase.
 */
export function wsdSchedule(options: WsdOptions): Stage[] {
  const { length, finalBlockSize, totalTokens, warmup = defaultWarmup, shares = defaultShares } = options
  checkBlockSize(finalBlockSize, length)
  checkTotal(totalTokens)
  for (const size of warmup) checkInteger(size, 'a warmup block size')
  for (const [phase, share] of Object.entries(shares)) {
    if (!(share >= 0 && Number.isFinite(share))) {
      throw new UserError(`Schedule: the share of ${phase} is ${share}; give a number of at least 0.`)
    }
  }

  const warmupSizes = warmup.filter((size) => size < length && length % size === 0)
  const decaySizes: number[] = []
  for (let size = length / 2; Number.isInteger(size) && size > finalBlockSize; size /= 2) decaySizes.push(size)

  const weighted: [size: number, share: number][] = []
  for (const size of warmupSizes) weighted.push([size, shares.warmup / warmupSizes.length])
  weighted.push([length, shares.stable])
  const finalShare = decaySizes.length > 0 ? shares.decay / 2 : shares.decay
  for (const size of decaySizes) weighted.push([size, (shares.decay - finalShare) / decaySizes.length])
  weighted.push([finalBlockSize, finalShare])
  if (!(weighted.reduce((sum, [, share]) => sum + share, 0) > 0)) {
    throw new UserError('Schedule: no phase has a share of the tokens; give at least one of warmup, stable, decay.')
  }
  return allot(weighted, totalTokens)
}

/** One block size from the first token to the last. */
export function constantSchedule(blockSize: number, tokens: number): Stage[] {
  checkInteger(blockSize, 'the block size')
  checkTotal(tokens)
  return [{ blockSize, tokens }]
}

/**
 * Reads an explicit schedule: entries `size:share`, where size is a block size or `L` (the row length, MDLM) and share is
 * a percentage of `totalTokens` (`10%`; all together 100%) or, in every entry, a count of tokens (`200000`, `200k`, `3M`).
 */
export function parseSchedule(entries: readonly string[], options: { length: number; totalTokens: number }): Stage[] {
  if (entries.length === 0) throw new UserError('Schedule: the list is empty; give entries such as "32:100%".')
  const parsed = entries.map((entry) => {
    const match = /^\s*(\d+|L)\s*:\s*(\d+(?:\.\d+)?)\s*(%|k|K|M|G)?\s*$/.exec(entry)
    if (!match) {
      throw new UserError(`Schedule: cannot read "${entry}"; write SIZE:SHARE, for example "32:80%" or "32:3M".`)
    }
    const [, size = '', amount = '', unit] = match
    const blockSize = size === 'L' ? options.length : Number(size)
    checkBlockSize(blockSize, options.length)
    const factor = unit === undefined || unit === '%' ? 1 : { k: 1e3, K: 1e3, M: 1e6, G: 1e9 }[unit]!
    return { blockSize, amount: Number(amount) * factor, percent: unit === '%' }
  })
  if (parsed.every((entry) => entry.percent)) {
    checkTotal(options.totalTokens)
    const sum = parsed.reduce((total, entry) => total + entry.amount, 0)
    if (Math.abs(sum - 100) > 0.01) {
      throw new UserError(`Schedule: the percentages of "${entries.join(', ')}" sum to ${sum}, not to 100.`)
    }
    return allot(
      parsed.map((entry) => [entry.blockSize, entry.amount]),
      options.totalTokens,
    )
  }
  if (parsed.some((entry) => entry.percent)) {
    throw new UserError(`Schedule: "${entries.join(', ')}" mixes percentages and token counts; use one of the two.`)
  }
  return parsed.map(({ blockSize, amount }) => {
    checkTotal(amount)
    return { blockSize, tokens: amount }
  })
}

/** The stage that the next step belongs to after `tokensSeen` training tokens; the last one from the end on. */
export function stageAt(schedule: readonly Stage[], tokensSeen: number): { index: number; stage: Stage } {
  if (schedule.length === 0) throw new UserError('Schedule: it has no stages.')
  let end = 0
  for (const [index, stage] of schedule.entries()) {
    end += stage.tokens
    if (tokensSeen < end) return { index, stage }
  }
  return { index: schedule.length - 1, stage: schedule.at(-1)! }
}

/** Training tokens of the whole schedule. */
export function scheduleTokens(schedule: readonly Stage[]): number {
  return schedule.reduce((sum, stage) => sum + stage.tokens, 0)
}

/** Splits the budget by weights so that the counts are whole and sum to it; neighbours of one size become one stage. */
function allot(weighted: readonly (readonly [size: number, share: number])[], totalTokens: number): Stage[] {
  const sum = weighted.reduce((total, [, share]) => total + share, 0)
  const stages: Stage[] = []
  let shareSoFar = 0
  let tokensSoFar = 0
  for (const [position, [blockSize, share]] of weighted.entries()) {
    shareSoFar += share
    const end = position === weighted.length - 1 ? totalTokens : Math.round((totalTokens * shareSoFar) / sum)
    const tokens = end - tokensSoFar
    tokensSoFar = end
    if (tokens <= 0) continue
    const last = stages.at(-1)
    if (last?.blockSize === blockSize) last.tokens += tokens
    else stages.push({ blockSize, tokens })
  }
  return stages
}

function checkInteger(value: number, what: string): void {
  if (!(Number.isSafeInteger(value) && value >= 1)) {
    throw new UserError(`Schedule: ${what} is ${value}; give a whole number of at least 1.`)
  }
}

function checkTotal(tokens: number): void {
  checkInteger(tokens, 'the token budget')
}

function checkBlockSize(blockSize: number, length: number): void {
  checkInteger(length, 'the row length')
  checkInteger(blockSize, 'the block size')
  if (blockSize > length || length % blockSize !== 0) {
    throw new UserError(
      `Schedule: block size ${blockSize} does not divide the row length ${length}; change one of them.`,
    )
  }
}
