// unmask dpo: trains a model on pairs of answers, of which one is the better.
import type { Command } from 'commander'
import type { DpoEvent, DpoResult } from '../../jobs/dpo.ts'
import { parsePreferenceRecipe, preferenceSchema } from '../../jobs/dpo-recipe.ts'
import { recipeSettings } from '../../jobs/recipe.ts'
import type { Evaluation } from '../../train/types.ts'
import type { Context } from '../context.ts'
import { count, decimals, percent } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { mergeRecipe, recipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { runTraining, trainingCommand, trainingFlags } from '../training-command.ts'
import { describeInterruption, showTraining } from '../training-display.ts'
import { convertDisplay } from './convert.ts'

export function dpoCommand(session: Session): Command {
  const settings = recipeSettings(preferenceSchema)
  const command = trainingCommand('dpo', {
    description: 'Train a model on preferences: pairs of a chosen and a rejected answer (DPO, VRPO).',
    data: 'pairs',
    settings,
  })
  return command
    .addHelpText(
      'after',
      `
A row of the data has "prompt", "chosen" and "rejected": texts, or lists of messages. The reference is the model as it is. output_dir receives model/ (with --rank also adapter/), reference/, checkpoints/, metrics.jsonl and recipe.yaml.

Examples:
  $ unmask dpo runs/quickstart/model --data pairs.jsonl --output-dir runs/dpo
  $ unmask dpo runs/a/model --data pairs.jsonl --output-dir runs/dpo --rank 16 --lr 5e-5 --draws 4
  $ unmask dpo --output-dir runs/dpo --resume`,
    )
    .action(
      action(session, async (context) => {
        const { flags, given } = trainingFlags(command)
        const loaded = await mergeRecipe(await recipeFile(flags), given, settings, parsePreferenceRecipe)
        return runTraining(context, 'dpo', {
          loaded,
          flags,
          job: async (options) => {
            const { dpo } = await import('../../jobs/dpo.ts')
            return dpo({ ...options, onEvent: dpoDisplay(context) })
          },
          describe: (result, resume) => describe(result, context, resume),
        })
      }),
    )
}

/** Shows the events of such a training on the display. */
export function dpoDisplay(context: Pick<Context, 'display' | 'whenStopped'>): (event: DpoEvent) => void {
  const show = convertDisplay(context)
  const { display } = context
  const counted = countedProgress(display)
  return (event) => {
    switch (event.type) {
      case 'pairs':
        display.line(`${count(event.training)} pairs to train on, ${count(event.heldOut)} held out`)
        break
      case 'reference':
        context.whenStopped('Stopping; what has been measured is kept.')
        counted({ what: 'reference', done: event.done, total: event.total, unit: 'pairs' })
        break
      case 'step':
        showTraining(display, () => ({
          ...event,
          blockSize: undefined,
          validation: undefined,
          baseBitsPerByte: undefined,
        }))
        break
      case 'validation':
        display.line(`step ${event.step}: ${heldOut(event.validation)}`)
        break
      default:
        show(event)
    }
  }
}

/** The held-out pairs in one line. */
function heldOut({ nll, stderr, metrics = {} }: Evaluation): string {
  return (
    `held-out loss ${decimals(nll, 3)} ± ${decimals(stderr, 3)}, margin ${decimals(metrics.reward_margin!, 3)}, ` +
    `the chosen answer has the higher reward in ${percent(metrics.reward_accuracy!)} of pairs ` +
    `and is the more likely one in ${percent(metrics.likelihood_accuracy!)}`
  )
}

function describe(result: DpoResult, { colors }: Pick<Context, 'colors'>, resume: string): string {
  if (result.status === 'interrupted') return describeInterruption(result, resume)
  const lines = [`${colors.bold('model')}   ${result.model}`]
  if (result.adapter) lines.unshift(`${colors.bold('adapter')} ${result.adapter}`)
  if (result.before) lines.push(`before: ${heldOut(result.before)}`)
  if (result.after) lines.push(`after:  ${heldOut(result.after)}`)
  return lines.join('\n')
}
