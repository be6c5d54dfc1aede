// unmask accelerate: trains an adapter that drafts tokens of an autoregressive model, which then verifies them itself.
import type { Command } from 'commander'
import type { AccelerateEvent, AccelerateResult } from '../../jobs/accelerate.ts'
import { acceleratorSchema, parseAcceleratorRecipe, recipeSettings } from '../../jobs/recipe.ts'
import type { Context } from '../context.ts'
import { count, decimals } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { mergeRecipe, recipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { runTraining, trainingCommand, trainingFlags } from '../training-command.ts'
import { describeInterruption, showTraining } from '../training-display.ts'
import { convertDisplay } from './convert.ts'

export function accelerateCommand(session: Session): Command {
  const settings = recipeSettings(acceleratorSchema)
  const command = trainingCommand('accelerate', {
    description: 'Make an autoregressive model write the same text in fewer forwards: train an adapter that drafts it.',
    data: 'training data',
    settings,
  })
  return command
    .addHelpText(
      'after',
      `
The model is not changed: output_dir receives adapter/ (PEFT layout), checkpoints/, metrics.jsonl and recipe.yaml.

Examples:
  $ unmask accelerate models/tiny --data data.jsonl --output-dir runs/fast --self-generate 200k
  $ unmask accelerate --recipe recipes/tiny-accelerate.yaml
  $ unmask generate models/tiny --adapter runs/fast/adapter --prompt "reverse(stone)="`,
    )
    .action(
      action(session, async (context) => {
        const { flags, given } = trainingFlags(command)
        const loaded = await mergeRecipe(await recipeFile(flags), given, settings, parseAcceleratorRecipe)
        return runTraining(context, 'accelerate', {
          loaded,
          flags,
          job: async (options) => {
            const { accelerate } = await import('../../jobs/accelerate.ts')
            return accelerate({ ...options, onEvent: accelerateDisplay(context) })
          },
          describe: (result, resume) => describe(result, context, resume),
        })
      }),
    )
}

function accelerateDisplay(context: Context): (event: AccelerateEvent) => void {
  const show = convertDisplay(context)
  const { display } = context
  const counted = countedProgress(display)
  return (event) => {
    switch (event.type) {
      case 'generating': {
        context.whenStopped('Stopping; the answers so far are kept.')
        const { tokens: done, totalTokens: total } = event
        counted({ what: 'writing answers', done, total, unit: 'tokens', format: count })
        break
      }
      case 'step':
        showTraining(display, () => ({
          ...event,
          blockSize: undefined,
          validation: undefined,
          baseBitsPerByte: undefined,
        }))
        break
      case 'validation':
        display.line(
          `step ${event.step}: held-out loss ${decimals(event.validation.nll, 3)} ± ${decimals(event.validation.stderr, 3)} nats per mask`,
        )
        break
      default:
        show(event)
    }
  }
}

function describe(result: AccelerateResult, { colors }: Pick<Context, 'colors'>, resume: string): string {
  if (result.status === 'interrupted') return describeInterruption(result, resume)
  const lines = [`${colors.bold('adapter')} ${result.adapter} (${count(result.parameters)} parameters)`]
  if (result.decoding) {
    const { base, accelerated, settings, equal, prompts } = result.decoding
    lines.push(
      `alone: ${decimals(base.tokensPerSecond, 1)} tokens/s`,
      `with the adapter: ${decimals(accelerated.tokensPerSecond, 1)} tokens/s, ${decimals(accelerated.tokensPerForward, 2)} tokens/forward (masks ${settings.masks}, row cost ${settings.rowCost})`,
      `${equal} of ${prompts} answers are the same tokens`,
    )
  }
  return lines.join('\n')
}
