// How a training run looks in a terminal: a bar with the numbers that show whether it goes well.
import type { Evaluation, Metric } from '../train/types.ts'
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
  /** What else the objective reports, by its name in metrics.jsonl. */
  metrics: Readonly<Record<string, Metric>>
  /** undefined for autoregressive training. */
  blockSize: number | undefined
  /** The last evaluation. */
  validation: Pick<Evaluation, 'bitsPerByte' | 'bitsPerByteStderr'> | undefined
  /** Bits per byte of the base model, decoding one token at a time. */
  baseBitsPerByte: number | undefined
}

/** `2.273 ± 0.004 bits/byte`: with the standard error where there is one. */
export function bitsPerByte(
  { bitsPerByte, bitsPerByteStderr }: NonNullable<TrainingState['validation']>,
  digits = 3,
): string {
  const error = bitsPerByteStderr > 0 ? ` ± ${decimals(bitsPerByteStderr, digits)}` : ''
  return `${decimals(bitsPerByte, digits)}${error} bits/byte`
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
  const { metrics, validation } = state
  const fields = [
    `step ${state.step}`,
    `${count(state.tokens)}/${count(state.totalTokens)} tokens`,
    `${count(state.tokensPerSecond)} tokens/s`,
    `loss ${decimals(state.loss, 3)}`,
  ]
  if (state.blockSize !== undefined) fields.push(`block ${state.blockSize}`)
  if (validation !== undefined) {
    const base = state.baseBitsPerByte === undefined ? '' : ` (AR base ${decimals(state.baseBitsPerByte, 3)})`
    fields.push(
      `${state.blockSize !== undefined && validation.bitsPerByteStderr > 0 ? 'NELBO ' : ''}${bitsPerByte(validation)}${base}`,
    )
  }
  if (typeof metrics.padding_loss === 'number') {
    fields.push(
      `loss on text ${decimals(Number(metrics.text_loss), 3)}, on padding ${decimals(metrics.padding_loss, 3)}`,
    )
  }
  if (Array.isArray(metrics.expert_load_max)) {
    fields.push(`busiest expert ${decimals(Math.max(...metrics.expert_load_max), 1)} x the mean`)
  }
  return fields
}

/** The last words of a run that was stopped. `resume`: the command that goes on. */
export function describeInterruption(
  { step, checkpoint }: { step: number; checkpoint: string | undefined },
  resume: string,
): string {
  if (checkpoint === undefined) return 'Stopped before anything was saved. Start again with the same command.'
  return `Stopped after step ${step}; saved ${checkpoint}. Continue with: ${resume}`
}

/** @param state Asked for when it is drawn, so that what follows a step, such as an evaluation, is in it. */
export function showTraining(display: Display, state: () => TrainingState): void {
  display.update({ live: (width, colors) => liveTraining(state(), width, colors), plain: () => plainTraining(state()) })
}
