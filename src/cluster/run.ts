// One machine's part of a training: the first runs the command, the others lend it their processes.
import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { exists } from '../checkpoint/file.ts'
import { UserError } from '../core/types.ts'
import { joinTorch } from '../runtime/torch/process.ts'
import type { ClusterSettings } from './settings.ts'

export interface RunOptions {
  /** How `unmask` is started: a program and its first arguments. */
  unmask: readonly [string, ...string[]]
  /** output_dir of the recipe, relative to the folder. A run that it holds is resumed. */
  outputDir: string
  signal?: AbortSignal
  env?: NodeJS.ProcessEnv
}

/** What torchrun needs to know on this machine. Throws UserError where the environment says something else than the settings. */
export function machineOf(settings: ClusterSettings, env: NodeJS.ProcessEnv): { rank: number; env: NodeJS.ProcessEnv } {
  const { machines, gpus, port } = settings
  const given = {
    PET_NNODES: String(machines),
    PET_NPROC_PER_NODE: String(gpus),
    PET_NODE_RANK: env.PET_NODE_RANK ?? '0',
    PET_MASTER_ADDR: env.PET_MASTER_ADDR ?? '127.0.0.1',
    PET_MASTER_PORT: env.PET_MASTER_PORT ?? String(port),
  }
  for (const [name, expected] of [
    ['PET_NNODES', machines],
    ['PET_NPROC_PER_NODE', gpus],
  ] as const)
    if (env[name] !== undefined && env[name] !== String(expected))
      throw new UserError(
        `${name} is ${env[name]}, but the cluster's file says ${expected}: render the job again, or correct machines and gpus`,
      )
  const rank = Number(given.PET_NODE_RANK)
  if (!(Number.isInteger(rank) && rank >= 0 && rank < machines))
    throw new UserError(`PET_NODE_RANK is ${given.PET_NODE_RANK}; expected 0 to ${machines - 1}`)
  if (machines > 1 && env.PET_MASTER_ADDR === undefined)
    throw new UserError(
      'PET_MASTER_ADDR is not set: the address of the first machine. Start the job that `unmask cluster render` makes, or set PET_NODE_RANK and PET_MASTER_ADDR',
    )
  return { rank, env: { ...env, ...given } }
}

/** Runs until the training ends; its exit code. Throws UserError where this machine cannot take part. */
export async function runMachine(settings: ClusterSettings, options: RunOptions): Promise<number> {
  const { command, recipe, machines, gpus, folder } = settings
  const { rank, env } = machineOf(settings, options.env ?? process.env)
  if (!(await exists(folder))) throw new UserError(`${folder}: no such folder; all machines must share it`)
  if (rank > 0) {
    await joinTorch({ env, signal: options.signal })
    return 0
  }
  // What the processes of all machines read.
  const temporary = join(folder, '.unmask')
  await mkdir(temporary, { recursive: true })
  const isBegun = await exists(join(resolve(folder, options.outputDir), 'recipe.yaml'))
  const [program, ...first] = options.unmask
  const settled = ['--executor', 'torch', '--processes', String(machines * gpus)]
  const run = [command, '--recipe', recipe, ...settled, ...(isBegun ? ['--resume'] : [])]
  const child = spawn(program, [...first, ...run], {
    cwd: folder,
    env: { ...env, TMPDIR: resolve(temporary) },
    stdio: 'inherit',
  })
  // It saves what it has, and then ends.
  options.signal?.addEventListener('abort', () => child.kill('SIGTERM'))
  return new Promise((done, reject) => {
    child.on('error', reject)
    child.on('close', (code) => done(code ?? 1))
  })
}
