// bench train: tokens a second of a block-diffusion training step (forward, backward, update) beside PyTorch, its peak
// memory, where its time goes, and what several noised copies per clean copy, and computing only what a loss depends on, gain.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import { type Child, startChild, startOwn } from './child.ts'
import { alternate, childrenOf, peakMemory, report } from './measure.ts'
import type { Profile } from './profile.ts'
import { trainShapes } from './shapes.ts'

export const usage = `usage: npm run bench -- train [flags]

A training step of a model with random weights: [x_t ; x_0], blocks of 32, t per sequence, loss weighted by 1/t, AdamW.
With UNMASK_PYTHON=FILE a Llama alternates with transformers' in PyTorch, in float32 and in bfloat16 (autocast).

  --models LIST   shapes, of ${Object.keys(trainShapes).join(',')} (default: all)
  --parts LIST    step: tokens/s and peak memory; profile: where the time goes; copies: several noised copies;
                  tiles: beside the computation of whole rows, on text and on rows of 60 prompt and 60 completion tokens
                  (default: all)
  --steps N       measured steps of each contestant (default 5)
  --warmup N      steps before them (default 2)
  --copies LIST   numbers of noised copies per clean copy (default 2,4)
  --dtypes LIST   the peer's types, of float32,bfloat16 (default: both)
  --executor NAME what trains unmask's models: onnxruntime (default), or torch, for which step measures each of the types
                  beside the peer's; needs UNMASK_PYTHON
  --threads N     threads of each contestant (default: the cores of the machine)
  --operators     profile: also one line per operation and operator type
`

const PARTS = ['step', 'profile', 'copies', 'tiles']
const DTYPES = ['float32', 'bfloat16']

interface Options {
  executor: string
  steps: number
  warmup: number
  threads: number
}

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      models: { type: 'string', default: Object.keys(trainShapes).join(',') },
      parts: { type: 'string', default: PARTS.join(',') },
      steps: { type: 'string', default: '5' },
      warmup: { type: 'string', default: '2' },
      copies: { type: 'string', default: '2,4' },
      dtypes: { type: 'string', default: DTYPES.join(',') },
      executor: { type: 'string', default: 'onnxruntime' },
      threads: { type: 'string', default: String(availableParallelism()) },
      operators: { type: 'boolean', default: false },
    },
  })
  const models = list('models', values.models, Object.keys(trainShapes))
  const parts = list('parts', values.parts, PARTS)
  const dtypes = list('dtypes', values.dtypes, DTYPES)
  const copies = values.copies.split(',').map((text) => whole('copies', text, 1))
  const [executor = ''] = list('executor', values.executor, ['onnxruntime', 'torch'])
  if (executor === 'torch' && (!process.env.UNMASK_PYTHON || parts.join() !== 'step'))
    throw new UserError('--executor torch: name a Python with PyTorch (UNMASK_PYTHON), and measure --parts step')
  const options = {
    executor,
    steps: whole('steps', values.steps, 1),
    warmup: whole('warmup', values.warmup, 0),
    threads: whole('threads', values.threads, 1),
  }
  for (const model of models) {
    if (parts.includes('step')) await step(model, dtypes, options)
    if (parts.includes('profile')) await profile(model, options, values.operators)
    if (parts.includes('copies')) for (const number of copies) await severalCopies(model, number, options)
    if (parts.includes('tiles')) await needed(model, options)
  }
}

function list(flag: string, text: string, allowed: readonly string[]): string[] {
  const items = text.split(',').filter((item) => item !== '')
  for (const item of items)
    if (!allowed.includes(item)) throw new UserError(`--${flag}: ${item} is none of ${allowed.join(', ')}`)
  return items
}

function whole(flag: string, text: string, least: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < least)
    throw new UserError(`--${flag}: ${text} is not a whole number of at least ${least}`)
  return value
}

const own = (model: string, { threads }: Options, extra: readonly string[] = []): Promise<Child> =>
  startOwn('./train-step.ts', ['--model', model, '--threads', String(threads), ...extra])

function torch(model: string, dtype: string, { threads }: Options): Promise<Child> {
  const { config, rows, length, blockSize } = trainShapes[model]
  const sizes = JSON.stringify({ config, rows, length, block_size: blockSize, threads, dtype })
  return startChild(process.env.UNMASK_PYTHON as string, ['bench/peers/train_torch.py', sizes])
}

const seconds = async (child: Child): Promise<number> => (await child.ask<{ seconds: number }>('step')).seconds

/** Tokens a second and peak memory, alternating with the peers. */
async function step(model: string, dtypes: readonly string[], options: Options): Promise<void> {
  const { rows, length } = trainShapes[model]
  const hasPeers = process.env.UNMASK_PYTHON && trainShapes[model].config.model_type === 'llama'
  const ours: Child[] = []
  const peers: Child[] = []
  try {
    if (options.executor === 'torch')
      for (const dtype of dtypes) ours.push(await own(model, options, ['--torch', dtype]))
    else ours.push(await own(model, options))
    if (hasPeers) for (const dtype of dtypes) peers.push(await torch(model, dtype, options))
    const contestants = Object.fromEntries([...ours, ...peers].map((child) => [child.name, () => seconds(child)]))
    const medians = await alternate(contestants, { rounds: options.steps, warmup: options.warmup })
    const speed = (child: Child) => (rows * length) / medians[child.name]
    const megabytes = (child: Child) => {
      const pids = options.executor === 'torch' ? [child.pid, ...childrenOf(child.pid)] : [child.pid]
      const bytes = pids.map(peakMemory)
      return bytes.includes(undefined) ? undefined : bytes.reduce((sum: number, one) => sum + (one ?? 0), 0) / 1e6
    }
    for (const [i, child] of ours.entries()) {
      // In PyTorch like stands beside like.
      const beside = options.executor === 'torch' ? peers.slice(i, i + 1) : peers
      const label = options.executor === 'torch' ? `${model}.torch-${dtypes[i]}` : model
      compare(label, 'tokens/s', child, beside, speed)
      compare(`${label}.memory`, 'MB', child, beside, megabytes)
    }
  } finally {
    for (const child of [...ours, ...peers]) await child.close()
  }
}

/** One line per peer, or one without. */
function compare(
  label: string,
  unit: string,
  ours: Child,
  peers: readonly Child[],
  measure: (child: Child) => number | undefined,
): void {
  const value = measure(ours)
  if (value === undefined) return
  if (peers.length === 0) report({ bench: 'train', case: label, value, unit })
  for (const peer of peers)
    report({ bench: 'train', case: label, value, unit, peer: peer.name, peerValue: measure(peer) })
}

/** Where the time of a step goes, and how near its products are to the machine's speed. */
async function profile(model: string, options: Options, operators: boolean): Promise<void> {
  const child = await own(model, options, ['--profile', '--warmup', String(options.warmup)])
  try {
    for (let i = 0; i < options.warmup + options.steps; i++) await seconds(child)
    const { gflops } = await child.ask<{ gflops: number }>('matmul')
    const result = await child.ask<Profile>('profile')
    const line = (name: string, value: number, unit: string) =>
      report({ bench: 'train', case: `${model}.${name}`, value, unit })
    const share = (name: string, value: number) => line(`share.${name}`, value, 'of a step')
    for (const [name, value] of Object.entries(result.shares)) share(name, value)
    for (const [name, value] of Object.entries(result.attention)) share(`attention.${name}`, value)
    share('outside-kernels', 1 - Object.values(result.shares).reduce((a, b) => a + b, 0))
    share('optimizer', result.optimizerShare)
    line('matmul-limit', gflops, 'GFLOP/s')
    line('matmul-speed', result.flopsPerStep / result.matmulSecondsPerStep / 1e9, 'GFLOP/s inside products')
    const achieved = result.flopsPerStep / result.secondsPerStep / 1e9
    line('step-speed', achieved, 'GFLOP/s over a step')
    line('step-speed-of-limit', achieved / gflops, 'of the matmul limit')
    if (operators) for (const [name, value] of result.operators) line(`operator.${name}`, value * 1000, 'ms per step')
  } finally {
    await child.close()
  }
}

/** Noised tokens a second with `copies` noised copies per clean copy, alternating with one copy. */
async function severalCopies(model: string, copies: number, options: Options): Promise<void> {
  const { rows, length } = trainShapes[model]
  const one = await own(model, options)
  const several = await own(model, options, ['--copies', String(copies)])
  try {
    const medians = await alternate(
      { one: () => seconds(one), several: () => seconds(several) },
      { rounds: options.steps, warmup: options.warmup },
    )
    report({
      bench: 'train',
      case: `${model}.copies-${copies}`,
      value: (copies * rows * length) / medians.several,
      unit: 'noised tokens/s',
      peer: 'unmask, 1 noised copy',
      peerValue: (rows * length) / medians.one,
    })
  } finally {
    await one.close()
    await several.close()
  }
}

/** Tokens a second where only tiles that a loss depends on are computed, alternating with the computation of whole rows. */
async function needed(model: string, options: Options): Promise<void> {
  const { rows, length } = trainShapes[model]
  for (const [label, flags] of [
    ['text', []],
    ['prompts', ['--prompts']],
  ] as const) {
    const tiles = await own(model, options, flags)
    const whole = await own(model, options, [...flags, '--whole-rows'])
    try {
      const medians = await alternate(
        { tiles: () => seconds(tiles), whole: () => seconds(whole) },
        { rounds: options.steps, warmup: options.warmup },
      )
      report({
        bench: 'train',
        case: `${model}.tiles-${label}`,
        value: (rows * length) / medians.tiles,
        unit: 'tokens/s',
        peer: 'unmask, whole rows',
        peerValue: (rows * length) / medians.whole,
      })
      const [value, peerValue] = [peakMemory(tiles.pid), peakMemory(whole.pid)]
      if (value === undefined || peerValue === undefined) continue
      report({
        bench: 'train',
        case: `${model}.tiles-${label}.memory`,
        value: value / 1e6,
        unit: 'MB',
        peer: 'unmask, whole rows',
        peerValue: peerValue / 1e6,
      })
    } finally {
      await tiles.close()
      await whole.close()
    }
  }
}
