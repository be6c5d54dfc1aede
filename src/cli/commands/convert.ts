// unmask convert: a recipe (YAML, flags or both) to a trained model and its report.
import { Command } from 'commander'
import { describeReport } from '../../data/report.ts'
import type { ConvertEvent, ConvertResult } from '../../jobs/convert.ts'
import type { Evaluation } from '../../train/types.ts'
import type { Context } from '../context.ts'
import { runFolderOptions } from '../flags.ts'
import { count, decimals, percent } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { addRecipeFlags, loadRecipe, recipeFile } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { runTraining, type TrainingFlags } from '../training-command.ts'
import { bitsPerByte, describeInterruption, showTraining } from '../training-display.ts'

export function convertCommand(session: Session): Command {
  const command = new Command('convert')
    .description('Convert an autoregressive model to diffusion, or train one, and report.')
    .option('-r, --recipe <file>', 'YAML file with the settings below; flags win over it')
    .option('--dry-run', 'print the merged recipe and stop')
  for (const option of runFolderOptions()) command.addOption(option)
  addRecipeFlags(command)
  return command
    .addHelpText(
      'after',
      `
In a recipe, a setting stands in the section that heads its group, with underscores for dashes:
  model: models/tiny
  output_dir: runs/tiny
  data: { train_path: [data.jsonl], max_seq_len: 256 }
  train: { total_tokens: 2M, lr: 2e-3 }
  diffusion: { block_size: 8 }

output_dir receives model/ (Hugging Face layout), report/, checkpoints/, metrics.jsonl and recipe.yaml.

Examples:
  $ unmask convert --recipe recipes/tiny-convert.yaml
  $ unmask convert --model models/tiny --train-path data.jsonl --output-dir runs/a --total-tokens 500k --block-size 8
  $ unmask convert --recipe recipe.yaml --lr 1e-4 --dry-run
  $ unmask convert --output-dir runs/a --resume`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.optsWithGlobals<TrainingFlags>()
        return runTraining(context, 'convert', {
          loaded: await loadRecipe(await recipeFile(flags), { ...flags }),
          flags,
          job: async (options) => {
            const { convert } = await import('../../jobs/convert.ts')
            return convert({ ...options, onEvent: convertDisplay(context) })
          },
          describe: (result, resume) => describeConversion(result, context, resume),
        })
      }),
    )
}

/** Shows the events of a conversion on the display. */
export function convertDisplay({
  display,
  whenStopped,
}: Pick<Context, 'display' | 'whenStopped'>): (event: ConvertEvent) => void {
  const counted = countedProgress(display)
  let saved = false
  // Elsewhere than on a terminal it would take the place of the first step's line.
  const waiting = (text: string) => {
    if (display.live) display.update({ live: (_, colors) => colors.dim(`${text} ...`), plain: () => text })
  }
  let baseBitsPerByte: number | undefined
  let validation: Evaluation | undefined
  return (event) => {
    switch (event.type) {
      case 'phase':
        display.done()
        display.line(event.message)
        if (saved) whenStopped('Stopping; the training is saved, and --resume goes on from there.')
        break
      case 'model': {
        const mask = event.maskToken ? `, mask token ${event.maskToken.token} (${event.maskToken.id})` : ''
        const { parameters, activeParameters: active } = event
        const used = active < parameters ? ` (${count(active)} active)` : ''
        display.line(`${event.name}: ${count(parameters)} parameters${used}${mask}`)
        if (event.dropped) display.line(`left out: ${event.dropped}`)
        break
      }
      case 'start':
        baseBitsPerByte = undefined
        validation = undefined
        whenStopped('Stopping after this step, which is saved.')
        waiting('measuring the held-out text')
        if (event.resumedFrom) display.line(`resumed from ${event.resumedFrom} at step ${event.step}`)
        break
      case 'baseline':
        baseBitsPerByte = event.baseline.bitsPerByte
        display.line(`AR base: ${decimals(baseBitsPerByte, 3)} bits/byte`)
        break
      case 'step':
        showTraining(display, () => ({ ...event, validation, baseBitsPerByte }))
        break
      case 'validation':
        validation = event.validation
        display.line(
          `step ${event.step}: held-out ${decimals(validation.nll, 3)} nats/token, ${bitsPerByte(validation)}`,
        )
        if (event.step === 0) waiting('the first step')
        break
      case 'checkpoint':
        saved = true
        display.line(`saved ${event.path}`)
        break
      case 'warning':
        display.line(`warning: ${event.message}`)
        break
      case 'decoding':
        counted({ what: `decoding, ${event.label}`, done: event.done, total: event.total, unit: 'prompts' })
    }
  }
}

/** The outcome in a few lines: where model and report are, and the figures. */
export function describeConversion(result: ConvertResult, { colors }: Pick<Context, 'colors'>, resume: string): string {
  if (result.status === 'interrupted') return describeInterruption(result, resume)
  const { evaluation, baseline, comparison, report, model, adapter, data } = result
  const lines = [`${colors.bold('model')}   ${model}`, `${colors.bold('report')}  ${report?.html}`]
  if (adapter) lines.unshift(`${colors.bold('adapter')} ${adapter}`)
  if (evaluation) {
    const base = baseline ? ` (AR base ${decimals(baseline.bitsPerByte, 3)})` : ''
    lines.push(`held-out text: ${bitsPerByte(evaluation)}${base}`)
  }
  for (const [name, summary] of [
    ['AR base', comparison?.ar],
    ['AR mode', comparison?.own],
    [comparison?.own ? 'speculative' : 'diffusion', comparison?.diffusion],
    ...(comparison?.own ? comparison.sweep : []).map((point) => [`threshold ${point.threshold}`, point] as const),
  ] as const) {
    if (!summary) continue
    const score = summary.score ? `score ${percent(summary.score.accuracy)}, ` : ''
    lines.push(
      `${name}: ${score}${decimals(summary.tokensPerForward, 2)} tokens/forward, ${decimals(summary.tokensPerSecond, 1)} tokens/s`,
    )
  }
  return [...lines, ...describeReport(data)].join('\n')
}
