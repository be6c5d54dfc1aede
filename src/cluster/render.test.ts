// Files that start a job: they are what their schedulers read, and give torchrun what it needs. Published schemas are not part of
// this repository: UNMASK_CRDS names a folder that holds them.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { python } from '../../test/torch.ts'
import { fileInFolder, render, schedulers } from './render.ts'
import { machineOf, runMachine } from './run.ts'
import { parseCluster } from './settings.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'unmask-cluster-'))
  // What a job starts says what it was given.
  script(
    'unmask',
    'echo "$PWD $PET_NNODES $PET_NPROC_PER_NODE $PET_NODE_RANK $PET_MASTER_ADDR $PET_MASTER_PORT $SETUP: $*"',
  )
  script('scontrol', 'printf "first\\nsecond\\n"')
  script('srun', 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done')
})
afterAll(() => rmSync(folder, { recursive: true }))

function script(name: string, body: string): void {
  writeFileSync(join(folder, name), `#!/bin/bash\n${body}\n`, { mode: 0o755 })
}

const settings = (change: object = {}) =>
  parseCluster(
    {
      ...{
        name: 'mine',
        recipe: 'recipe.yaml',
        machines: 2,
        gpus: 8,
        folder,
        image: 'registry/unmask:1',
        claim: 'work',
      },
      ...{ setup: ["export SETUP='it is set'"], ...change },
    },
    'cluster.yaml',
  )

const bash = (text: string, env: Record<string, string> = {}): string[] =>
  execFileSync('bash', ['-c', text], {
    env: { PATH: `${folder}:${process.env.PATH}`, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
    .trim()
    .split('\n')

const line = (rank: number, head = 'first', port = 29_500) =>
  `${folder} 2 8 ${rank} ${head} ${port} it is set: cluster run cluster.yaml`

/** The schema of a custom resource in which nothing unknown is allowed. */
function schemaOf(file: string): object {
  const { spec } = parse(readFileSync(file, 'utf8')) as {
    spec: { versions: { schema: { openAPIV3Schema: object } }[] }
  }
  return closed(spec.versions.at(-1)!.schema.openAPIV3Schema) as object
}

function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]))
  const isOpen = !('properties' in schema) || 'additionalProperties' in schema
  return isOpen ? inner : { ...inner, additionalProperties: false }
}

const crds = process.env.UNMASK_CRDS

describe('a job', () => {
  it('for Slurm starts every machine', () => {
    const text = render('slurm', settings({ hours: 1.5, partition: 'long' }), 'cluster.yaml')
    expect(text).toMatch(/^#!\/bin\/bash\n/)
    expect(text).toContain('#SBATCH --nodes=2\n')
    expect(text).toContain('#SBATCH --gpus-per-node=8\n')
    expect(text).toContain('#SBATCH --time=90\n')
    expect(text).toContain('#SBATCH --partition=long\n')
    expect(bash(text, { SLURM_JOB_NUM_NODES: '2', SLURM_JOB_NODELIST: 'x' })).toEqual([line(0), line(1)])
  })

  it('for SkyPilot is a task', () => {
    const { run, setup, ...task } = parse(render('skypilot', settings({ gpu: 'H200' }), 'cluster.yaml'))
    expect(task).toEqual({ name: 'mine', num_nodes: 2, resources: { accelerators: 'H200:8' } })
    const env = { SKYPILOT_NUM_NODES: '2', SKYPILOT_NODE_RANK: '1', SKYPILOT_NODE_IPS: 'first\nsecond' }
    expect(bash(`${setup}${run}`, env)).toEqual([line(1)])
  })

  it('for Kubeflow has a pod for each machine', () => {
    const { spec } = parse(render('trainjob', settings(), 'cluster.yaml'))
    expect(spec.trainer).toMatchObject({ numNodes: 2, numProcPerNode: 8 })
    const given = { PET_NNODES: '2', PET_NPROC_PER_NODE: '8', PET_NODE_RANK: '1', PET_MASTER_ADDR: 'first' }
    expect(bash(spec.trainer.command[2], { ...given, PET_MASTER_PORT: '29500' })).toEqual([line(1)])

    const { Master, Worker } = parse(render('pytorchjob', settings(), 'cluster.yaml')).spec.pytorchReplicaSpecs
    expect([Master.replicas, Worker.replicas]).toEqual([1, 1])
    const [{ command }] = Worker.template.spec.containers
    expect(bash(command[2], { RANK: '1', MASTER_ADDR: 'first', MASTER_PORT: '23456' })).toEqual([
      line(1, 'first', 23_456),
    ])
    expect(() => render('trainjob', settings({ image: undefined }), 'cluster.yaml')).toThrow('needs image')
  })

  it('for Ray is Python', () => {
    const file = join(folder, 'job.py')
    writeFileSync(file, render('ray', settings(), 'cluster.yaml'))
    execFileSync(python, ['-c', `import ast; ast.parse(open(${JSON.stringify(file)}).read())`])
  })

  it.skipIf(!crds)('is what the published schemas of Kubeflow allow', () => {
    for (const [scheduler, file] of [
      ['trainjob', 'trainjobs.yaml'],
      ['pytorchjob', 'pytorchjobs.yaml'],
    ] as const) {
      const validate = new Ajv({ strict: false, validateFormats: false }).compile(schemaOf(join(crds!, file)))
      const job = parse(render(scheduler, settings(), 'cluster.yaml'))
      validate({ ...job, metadata: {} })
      expect(validate.errors, scheduler).toBe(null)
      validate({ ...job, spec: { ...job.spec, nonsense: 1 } })
      expect(validate.errors).not.toBe(null)
    }
  })

  it('names the file as machines find it in the folder', () => {
    expect(fileInFolder('/shared/run/jobs/cluster.yaml', '/shared/run')).toBe('jobs/cluster.yaml')
    expect(fileInFolder('../elsewhere/cluster.yaml', '/shared/run')).toBe('cluster.yaml')
  })

  it('says what is wrong', () => {
    expect(() => settings({ machines: 0, nmae: 'x' })).toThrow(/cluster.yaml: (machines|nmae)/)
    expect(() => settings({ folder: '/x"; rm -rf /"' })).toThrow('folder')
    expect(() => settings({ folder: 'x' })).toThrow(/folder: .*absolute/)
    for (const scheduler of schedulers) expect(() => render(scheduler, settings(), 'a b.yaml')).toThrow('rename')
  })
})

describe('a machine', () => {
  it('knows its place, and refuses another one than the file says', () => {
    const given = { PET_NNODES: '2', PET_NPROC_PER_NODE: '8', PET_NODE_RANK: '1', PET_MASTER_ADDR: 'first' }
    expect(machineOf(settings(), given)).toMatchObject({ rank: 1, env: { PET_MASTER_PORT: '29500' } })
    expect(machineOf(settings({ machines: 1 }), {}).rank).toBe(0)
    expect(() => machineOf(settings(), { ...given, PET_NNODES: '4' })).toThrow('PET_NNODES is 4')
    expect(() => machineOf(settings(), { ...given, PET_NODE_RANK: '2' })).toThrow('expected 0 to 1')
    expect(() => machineOf(settings(), { PET_NODE_RANK: '0' })).toThrow('PET_MASTER_ADDR is not set')
  })

  it('that is the first runs the command, and resumes a run that has begun', async () => {
    const out = join(folder, 'out')
    script('command', `echo "$TMPDIR $*" >> ${out}`)
    const options = { unmask: [join(folder, 'command')] as const, outputDir: 'run', env: process.env }
    const one = settings({ machines: 1, gpus: 4 })
    expect(await runMachine(one, options)).toBe(0)
    expect(existsSync(join(folder, '.unmask'))).toBe(true)
    const run = `${join(folder, '.unmask')} convert --recipe recipe.yaml --executor torch --processes 4`
    expect(readFileSync(out, 'utf8')).toBe(`${run}\n`)
    execFileSync('mkdir', ['-p', join(folder, 'run')])
    writeFileSync(join(folder, 'run', 'recipe.yaml'), '')
    await runMachine(one, options)
    expect(readFileSync(out, 'utf8')).toBe(`${run}\n${run} --resume\n`)
    await expect(runMachine(settings({ machines: 1, folder: '/nowhere' }), options)).rejects.toThrow('must share it')
  })
})
