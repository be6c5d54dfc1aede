// unmask rl: trains a model on tasks whose answers can be checked.
import type { Command } from 'commander'
import { recipeSettings } from '../../jobs/recipe.ts'
import type { RlEvent, RlResult } from '../../jobs/rl.ts'
import { parseRlRecipe, rlSchema } from '../../jobs/rl-recipe.ts'
import type { Evaluation } from '../../train/types.ts'
import type { Context } from '../context.ts'
import { decimals, percent } from '../format.ts'
import { mergeRecipe, recipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { runTraining, trainingCommand, trainingFlags } from '../training-command.ts'
import { describeInterruption, showTraining } from '../training-display.ts'
import { convertDisplay } from './convert.ts'

export function rlCommand(session: Session): Command {
  const settings = recipeSettings(rlSchema)
  const command = trainingCommand('rl', {
    description: 'Train a model of block diffusion on tasks whose answers are checked (reinforcement learning).',
    settings,
  })
  return command
    .addHelpText(
      'after',
      `
A step asks questions, lets the model write several answers to each, and makes those more probable that are worth more than the others. output_dir receives model/, checkpoints/, metrics.jsonl and recipe.yaml.

Examples:
  $ unmask rl runs/blocks/model --tasks count --output-dir runs/rl --steps 50
  $ unmask rl runs/blocks/model --tasks count --output-dir runs/rl --strategy fixed --tokens-per-step 16 --lr 1e-4
  $ unmask rl --output-dir runs/rl --resume`,
    )
    .action(
      action(session, async (context) => {
        const { flags, given } = trainingFlags(command)
        const loaded = await mergeRecipe(await recipeFile(flags), given, settings, parseRlRecipe)
        return runTraining(context, 'rl', {
          loaded,
          flags,
          job: async (options) => {
            const { rl } = await import('../../jobs/rl.ts')
            return rl({ ...options, onEvent: rlDisplay(context) })
          },
          describe: (result, resume) => describe(result, context, resume),
        })
      }),
    )
}

function rlDisplay(context: Context): (event: RlEvent) => void {
  const show = convertDisplay(context)
  const { display } = context
  return (event) => {
    switch (event.type) {
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

/** The held-out questions in one line. */
const heldOut = ({ stderr, metrics = {} }: Evaluation): string =>
  `${percent(metrics.reward!)} ± ${percent(stderr)} of held-out questions answered rightly, ` +
  `${decimals(metrics.tokens_per_forward!, 2)} tokens per forward`

function describe(result: RlResult, { colors }: Pick<Context, 'colors'>, resume: string): string {
  if (result.status === 'interrupted') return describeInterruption(result, resume)
  const lines = [`${colors.bold('model')}   ${result.model}`]
  if (result.before) lines.push(`before: ${heldOut(result.before)}`)
  if (result.after) lines.push(`after:  ${heldOut(result.after)}`)
  return lines.join('\n')
}
