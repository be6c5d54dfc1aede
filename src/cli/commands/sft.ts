// unmask sft: fine-tunes a model on chats or prompts and completions, with the objective that it has.
import type { Command } from 'commander'
import { parseSftRecipe, sftSettings } from '../../jobs/sft-recipe.ts'
import { fetchForTraining } from '../fetch.ts'
import { mergeRecipe, recipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { runTraining, trainingCommand, trainingFlags } from '../training-command.ts'
import { convertDisplay, describeConversion } from './convert.ts'

export function sftCommand(session: Session): Command {
  const settings = sftSettings()
  const command = trainingCommand('sft', {
    description: 'Fine-tune a model on chats, or on prompts and completions, with the objective that it has.',
    data: 'training data',
    settings,
  })
  return command
    .addHelpText(
      'after',
      `
The recipe is that of unmask convert, with other defaults. Prompts carry no loss; every answer of a chat does, or with --turns last the last one.

Examples:
  $ unmask sft runs/mine/model --data chats.jsonl --output-dir runs/tuned --total-tokens 200k
  $ unmask sft runs/mine/model --data chats.jsonl --output-dir runs/fast --confidence-beta 2
  $ unmask sft --recipe recipes/tiny-sft.yaml`,
    )
    .action(
      action(session, async (context) => {
        const { flags, given } = trainingFlags(command)
        const file = await recipeFile(flags)
        const named = await mergeRecipe(file, given, settings, (value) => (value as { model?: unknown }).model)
        const config = typeof named.recipe === 'string' ? await configOf(named.recipe) : { model_type: '' }
        const loaded = await mergeRecipe(file, given, settings, (value, origin) =>
          parseSftRecipe(value, config, origin),
        )
        return runTraining(context, 'sft', {
          loaded,
          flags,
          // The model is fetched already, since its kind decides what the recipe may say.
          job: async ({ fetch: _, ...options }) => {
            const { convert } = await import('../../jobs/convert.ts')
            return convert({ ...options, onEvent: convertDisplay(context) })
          },
          describe: (result, resume) => describeConversion(result, context, resume),
        })

        async function configOf(source: string) {
          await fetchForTraining(context, source)
          const { modelConfig } = await import('../../jobs/sft.ts')
          return modelConfig(source, context.signal)
        }
      }),
    )
}
