// unmask cluster plan: what training a model on many GPUs takes.
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { Command, Option } from 'commander'
import type { Plan } from '../../cluster/plan.ts'
import { type ModelConfig, UserError } from '../../core/types.ts'
import type { Context } from '../context.ts'
import { UsageError } from '../errors.ts'
import { fetchModel } from '../fetch.ts'
import { number, wholeNumber } from '../flags.ts'
import { bytes, count, table } from '../format.ts'
import { action, type Session } from '../session.ts'

interface Flags {
  gpus: string
  tokens: string
  length: string
  blockSize: string
  copies: string
  rows: string
  expertParallel: string
  dtype: 'float32' | 'bfloat16'
  recompute: boolean
  mfu: string
  price: string
  overhead: string
  carbon: string
}

export function clusterPlanCommand(session: Session): Command {
  return new Command('plan')
    .description(
      'Plan training on many GPUs: memory of each by part, speed, hours, energy, CO2 and money of each stage. Nothing is run.',
    )
    .argument('<model>', 'llada2-mini, llada2-flash, a config.json, or what pull takes')
    .option('--gpus <name:number>', 'GPUs: A100, H100, H200, B200, L40S or MI300X, and how many', 'H100:8')
    .option('--tokens <number>', 'training tokens, such as 100G', '1G')
    .option('--length <tokens>', 'length of a row', '4096')
    .option('--block-size <tokens>', 'final block size; the schedule is that of convert (wsd)', '32')
    .option('--copies <number>', 'noised copies of a row', '1')
    .option('--rows <number>', 'rows of a micro-batch on each GPU', '1')
    .option('--expert-parallel <number>', 'GPUs among which the experts of a layer are divided', '1')
    .addOption(new Option('--dtype <type>', 'type of products').choices(['float32', 'bfloat16']).default('bfloat16'))
    .option('--no-recompute', 'keep the activations of all layers for the backward pass')
    .option('--mfu <share>', "share of the GPUs' operations that do the model's work: an assumption", '0.3')
    .option('--price <number>', 'money per GPU and hour: an assumption', '2.5')
    .option('--overhead <factor>', 'power of the site over power of the GPUs: an assumption', '1.4')
    .option('--carbon <kilograms>', 'CO2 per kWh: an assumption', '0.4')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask cluster plan llada2-flash --gpus H100:64 --tokens 100G --expert-parallel 8
  $ unmask cluster plan runs/mine/model --gpus L40S:2 --no-recompute --json`,
    )
    .action(
      action(session, async (context, command) => {
        const plan = await planned(context, command.args[0]!, command.opts<Flags>())
        context.result(plan, () => planText(plan))
      }),
    )
}

async function planned(context: Context, name: string, flags: Flags): Promise<Plan> {
  const { planTraining } = await import('../../cluster/plan.ts')
  const { parseGpus } = await import('../../cluster/gpus.ts')
  const { createModel } = await import('../../models/index.ts')
  const { wsdSchedule } = await import('../../diffusion/schedule.ts')
  const { tokenCount } = await import('../../jobs/recipe.ts')
  const whole = (flag: keyof Flags, name: string) => wholeNumber(name, flags[flag] as string, 1)!
  const tokens = tokenCount.safeParse(flags.tokens)
  if (!tokens.success) throw new UsageError(`--tokens: expected a number such as 100G, not ${flags.tokens}`)
  const { gpu, count: gpus } = parseGpus(flags.gpus)
  const [length, blockSize] = [whole('length', '--length'), whole('blockSize', '--block-size')]
  if (length % blockSize !== 0) throw new UsageError(`--block-size: ${blockSize} does not divide --length ${length}`)
  const options = {
    ...{ gpu, gpus, length, dtype: flags.dtype, recompute: flags.recompute },
    schedule: wsdSchedule({ length, finalBlockSize: blockSize, totalTokens: tokens.data }),
    copies: whole('copies', '--copies'),
    rows: whole('rows', '--rows'),
    expertParallel: whole('expertParallel', '--expert-parallel'),
    mfu: number('--mfu', flags.mfu, { least: 0.001, most: 1 }),
    price: number('--price', flags.price),
    overhead: number('--overhead', flags.overhead, { least: 1 }),
    carbon: number('--carbon', flags.carbon),
  }
  return planTraining(createModel(await configOf(context, name)), options)
}

/** The config.json of a known shape, a file, or a model. */
async function configOf(context: Context, name: string): Promise<ModelConfig> {
  const { knownShapes } = await import('../../cluster/shapes.ts')
  if (Object.hasOwn(knownShapes, name)) return knownShapes[name]!
  const { path } = await fetchModel(context, name)
  const file = basename(path) === 'config.json' ? path : join(path, 'config.json')
  if (!existsSync(file)) throw new UserError(`${path}: has no config.json; name a folder or file that has one`)
  const { readModelJson } = await import('../../checkpoint/file.ts')
  return (await readModelJson(file)) as ModelConfig
}

const large = (value: number): string => value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 })

function planText({ parameters, stages, ...plan }: Plan): string {
  const worst = stages.reduce((a, b) => (b.memory.total > a.memory.total ? b : a)).memory
  const hasExperts = parameters.active < parameters.total
  const memory = Object.entries(worst).map(([part, value]) => [part, bytes(value)])
  return [
    `${count(parameters.total)} parameters, ${count(parameters.active)} active`,
    '',
    'Memory of each GPU at the most:',
    table(memory),
    plan.fits
      ? `It fits: ${bytes(plan.available)} are there, 10 % left for PyTorch and NCCL.`
      : `It does NOT fit: ${bytes(plan.available)} are there, 10 % left for PyTorch and NCCL. More GPUs${hasExperts ? ', --expert-parallel' : ''} or fewer --rows help.`,
    '',
    table([
      ['block size', 'tokens', 'tokens/s', 'hours', 'kWh', 'kg CO2', 'money'],
      ...stages.map((stage) => [
        String(stage.blockSize),
        count(stage.tokens),
        large(stage.tokensPerSecond),
        ...[stage.hours, stage.energy, stage.co2, stage.money].map(large),
      ]),
      ['all', '', '', ...[plan.hours, plan.energy, plan.co2, plan.money].map(large)],
    ]),
    '',
    'Memory comes from formulas that were compared with small runs; speed, energy, CO2 and money from the assumptions',
    '--mfu, --overhead, --carbon and --price (docs/cluster.md).',
  ].join('\n')
}
