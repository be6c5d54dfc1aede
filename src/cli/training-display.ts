// How a training run looks in a terminal: a bar with the numbers that tell whether it goes well.
import type { Colors } from './context.ts'
import type { Display } from './display.ts'
import { bar, count, decimals, duration } from './format.ts'

export interface TrainingState {
  step: number
  tokens: number
  totalTokens: number
  /** Tokens per second of the last steps. */
  tokensPerSecond: number
  secondsLeft: number
  loss: number
  /** Mixtures of experts: the load of the busiest expert over the mean. Undefined for a dense model. */
  expertLoadMax: number | undefined
  /** undefined for autoregressive training. */
  blockSize: number | undefined
  /** Bits per byte of the last evaluation. */
  bitsPerByte: number | undefined
  /** Bits per byte of the base model, decoding one token at a time. */
  baseBitsPerByte: number | undefined
}

/** Two lines: how far and how long, and how well. Fields that do not fit the width are left out from the end. */
export function liveTraining(state: TrainingState, width: number, colors: Colors): string {
  const share = shareDone(state)
  const head = ` ${String(Math.floor(share * 100)).padStart(3)} %  ${duration(state.secondsLeft)} left`
  const barWidth = Math.max(8, Math.min(48, width - head.length - 1))
  const fields = trainingFields(state)
  let second = ''
  for (const field of fields) {
    const longer = second === '' ? field : `${second}  ${field}`
    if (longer.length >= width) break
    second = longer
  }
  return `${colors.cyan(bar(share, barWidth))}${head}\n${colors.dim(second)}`
}

/** One line without control codes, for logs. */
export function plainTraining(state: TrainingState): string {
  const share = shareDone(state)
  return `${Math.floor(share * 100)} %  ${trainingFields(state).join('  ')}  ${duration(state.secondsLeft)} left`
}

/** The last step may go a little beyond the budget. */
const shareDone = ({ tokens, totalTokens }: TrainingState): number =>
  totalTokens > 0 ? Math.min(1, tokens / totalTokens) : 0

function trainingFields(state: TrainingState): string[] {
  const fields = [
    `step ${state.step}`,
    `${count(state.tokens)}/${count(state.totalTokens)} tokens`,
    `${count(state.tokensPerSecond)} tokens/s`,
    `loss ${decimals(state.loss, 3)}`,
  ]
  if (state.blockSize !== undefined) fields.push(`block ${state.blockSize}`)
  if (state.bitsPerByte !== undefined) {
    const base = state.baseBitsPerByte === undefined ? '' : ` (AR base ${decimals(state.baseBitsPerByte, 3)})`
    fields.push(`${state.blockSize === undefined ? '' : 'NELBO '}${decimals(state.bitsPerByte, 3)} bits/byte${base}`)
  }
  if (state.expertLoadMax !== undefined) fields.push(`busiest expert ${decimals(state.expertLoadMax, 1)} x the mean`)
  return fields
}

export function showTraining(display: Display, state: TrainingState): void {
  display.update({ live: (width, colors) => liveTraining(state, width, colors), plain: () => plainTraining(state) })
}
