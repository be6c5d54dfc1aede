// unmask rewrite: corrects a text with a model that was trained to correct tokens.
import { text as readStream } from 'node:stream/consumers'
import { Command, Option } from 'commander'
import { fetchAndLoad } from '../fetch.ts'
import { deviceOption, mandatory, wholeNumber } from '../flags.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  text: string
  keep?: string
  blockSize?: string
}

const OWN = ['decode.threshold', 'decode.editing_threshold', 'decode.max_post_steps']

export function rewriteCommand(session: Session): Command {
  const command = new Command('rewrite')
    .description(
      'Correct a noisy text. Models trained to correct tokens replace those that they find improbable (LLaDA2.1 token editing); models such as smollm2-repair write the text anew.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .addOption(mandatory(new Option('-t, --text <text>', 'the text; - reads it from stdin')))
    .option('--keep <text>', 'text before it, which the model reads and does not change')
    .option('--block-size <number>', "tokens read together (default: the model's)")
    .addOption(deviceOption())
  addRecipeFlags(command, ({ path }) => OWN.includes(path))
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask rewrite smollm2-repair --text "Teh commitee meets onFriday."
  $ unmask rewrite runs/mine/model --text "teh stste of hte union" --editing-threshold 0.6
  $ unmask rewrite runs/mine/model --keep "Question: what is it?" --text - < transcript.txt`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const blockSize = wholeNumber('--block-size', flags.blockSize)
        const text = flags.text === '-' ? (await readStream(process.stdin)).replace(/\r?\n$/, '') : flags.text
        const { openModel } = await import('../../text/open.ts')
        const { threads, device, signal } = context
        const { decode } = sectionFlags(command.opts())
        const { threshold, editing_threshold: editingThreshold, max_post_steps: maxPostSteps } = decode
        await fetchAndLoad(context, command.args[0]!)
        const model = await openModel(command.args[0]!, { threads, device, signal })
        context.display.clear()
        try {
          const settings = { threshold, editingThreshold, maxPostSteps, blockSize, keep: flags.keep, signal }
          const rewritten = await model.rewrite(text, settings)
          context.result(rewritten, () => rewritten.text)
          const { changed, tokens, deleted, forwards } = rewritten
          const without = deleted > 0 ? ` and ${deleted} deleted` : ''
          context.display.line(`${changed} of ${tokens} tokens changed${without} in ${forwards} forwards`)
        } finally {
          await model.dispose()
        }
      }),
    )
}
