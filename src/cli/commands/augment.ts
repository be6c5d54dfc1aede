// unmask augment: more rows like those of a data set.
import { Command, Option } from 'commander'
import { mandatory, number } from '../flags.ts'
import { table } from '../format.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  model: string
  out: string
  force?: boolean
  field: string
  maskRatio: string
  span: string
  n: string
  heldOut?: string[]
  leakWords: string
  seed: string
  temperature: string
  topP?: string
  threshold?: string
}

export function augmentCommand(session: Session): Command {
  return new Command('augment')
    .description('Vary the rows of a data set: mask spans of a text field and let a diffusion model fill them again.')
    .argument('<data>', '.jsonl file, folder or glob')
    .addOption(
      mandatory(
        new Option('--model <model>', 'diffusion model: folder, file, Hub repository or pypi:PACKAGE; see pull'),
      ),
    )
    .addOption(mandatory(new Option('--out <file>', 'file to write; it holds the new rows only')))
    .option('--force', 'replace the file if it exists')
    .option('--field <name>', 'field whose text is varied; all others stay as they are', 'text')
    .option('--mask-ratio <share>', 'share of a text that is masked', '0.15')
    .option('--span <tokens>', 'mean length of a masked span', '3')
    .option('--n <number>', 'new rows per row, at most', '1')
    .option('--held-out <paths...>', 'held-out rows: new rows must not share text with them')
    .option('--leak-words <number>', 'a row with this many words in a row of held-out data is a leak', '8')
    .option('--seed <number>', 'seed of spans and fillings', '0')
    .option('--temperature <number>', 'temperature of the fillings; 0 takes the most probable token', '1')
    .option('--top-p <share>', 'draw from the most probable tokens that make up this share')
    .option('--threshold <probability>', 'commit tokens whose probability is above this')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask augment reviews.jsonl --model runs/mine/model --out more.jsonl --n 3
  $ unmask augment train.jsonl --model runs/mine/model --out more.jsonl --mask-ratio 0.3 --held-out test.jsonl`,
    )
    .action(
      action(session, async (context, command) => {
        const flags = command.opts<Flags>()
        const { augment } = await import('../../jobs/augment.ts')
        const result = await augment({
          model: flags.model,
          data: command.args[0]!,
          out: flags.out,
          force: flags.force,
          field: flags.field,
          maskRatio: number('--mask-ratio', flags.maskRatio),
          span: number('--span', flags.span),
          n: number('--n', flags.n),
          heldOut: flags.heldOut,
          leakWords: number('--leak-words', flags.leakWords),
          seed: number('--seed', flags.seed),
          temperature: number('--temperature', flags.temperature),
          ...(flags.topP === undefined ? {} : { topP: number('--top-p', flags.topP) }),
          ...(flags.threshold === undefined ? {} : { threshold: number('--threshold', flags.threshold) }),
          threads: context.threads,
          signal: context.signal,
          onEvent: ({ rows, written }) => {
            const text = `${rows} rows read, ${written} written`
            context.display.update({ live: () => text, plain: () => text })
          },
        })
        context.display.done()
        context.result(result, () =>
          [
            `${result.out}: ${result.written} new rows from ${result.rows}`,
            table([
              ['left out', 'rows'],
              ['unchanged', String(result.unchanged)],
              ['duplicates', String(result.duplicates)],
              ['leaks of held-out data', String(result.leaks)],
              ['in held-out data already', String(result.heldOut)],
              ['without a usable text', String(result.unusable)],
            ]),
          ].join('\n'),
        )
      }),
    )
}
