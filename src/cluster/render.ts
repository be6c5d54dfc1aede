// Files that start a training on several machines. Each runs `unmask cluster run FILE` on every machine, with the variables that
// torchrun reads (PET_*); all else is in FILE.
import { basename, isAbsolute, relative, resolve } from 'node:path'
import { stringify } from 'yaml'
import { UserError } from '../core/types.ts'
import type { ClusterSettings } from './settings.ts'

/** `file`: the cluster's YAML file, as all machines see it. */
type Render = (settings: ClusterSettings, file: string) => string

export const schedulers = ['slurm', 'trainjob', 'pytorchjob', 'ray', 'skypilot'] as const
export type Scheduler = (typeof schedulers)[number]

/** Writes the file of a scheduler. Throws UserError where a setting that it needs is missing. */
export function render(scheduler: Scheduler, settings: ClusterSettings, file: string): string {
  if (!/^[\w./@:-]+$/.test(file))
    throw new UserError(`${file}: a path in a job may have letters, digits and . / @ : _ - only; rename the file`)
  return renderers[scheduler](settings, file)
}

/** The file as machines find it that start in `folder`: its path below it where it lies there, else its name, to be copied there. */
export function fileInFolder(file: string, folder: string): string {
  const below = relative(folder, resolve(file))
  return below.startsWith('..') || isAbsolute(below) ? basename(file) : below
}

const renderers: Readonly<Record<Scheduler, Render>> = { slurm, trainjob, pytorchjob, ray, skypilot }

const run = (file: string): string => `unmask cluster run ${file}`

const comment = (scheduler: string, file: string): string =>
  `# Made by \`unmask cluster render ${file} --to ${scheduler}\`.\n`

function slurm({ name, machines, gpus, hours, partition, folder, setup, port }: ClusterSettings, file: string): string {
  const minutes = Math.ceil(hours * 60)
  return `#!/bin/bash
${comment('slurm', file)}#SBATCH --job-name=${name}
#SBATCH --nodes=${machines}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=${gpus}
#SBATCH --time=${minutes}
#SBATCH --requeue
${partition === undefined ? '' : `#SBATCH --partition=${partition}\n`}set -euo pipefail
cd "${folder}"
export PET_NNODES=$SLURM_JOB_NUM_NODES PET_NPROC_PER_NODE=${gpus} PET_MASTER_PORT=${port}
PET_MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_MASTER_ADDR
srun --kill-on-bad-exit=1 bash -c '
${[...setup.map((line) => line.replaceAll("'", `'\\''`)), 'export PET_NODE_RANK=$SLURM_NODEID', run(file)].join('\n')}
'
`
}

/** What pods have in common. Throws UserError without image and claim. */
function podOf({ image, claim, folder, gpus }: ClusterSettings, scheduler: Scheduler) {
  if (image === undefined || claim === undefined)
    throw new UserError(`${scheduler} needs image (with Node, unmask and PyTorch) and claim (a volume for folder)`)
  return {
    image,
    resources: { limits: { 'nvidia.com/gpu': gpus } },
    mounts: [
      { name: 'work', mountPath: folder },
      // Processes of a machine exchange gradients through shared memory.
      { name: 'shm', mountPath: '/dev/shm' },
    ],
    volumes: [
      { name: 'work', persistentVolumeClaim: { claimName: claim } },
      { name: 'shm', emptyDir: { medium: 'Memory' } },
    ],
  }
}

const shell = ({ setup, folder }: ClusterSettings, file: string, ...exports: string[]): string[] => [
  'bash',
  '-c',
  ['set -eu', `cd "${folder}"`, ...setup, ...exports, `exec ${run(file)}`].join('\n'),
]

/** Kubeflow Trainer v2, whose runtime for PyTorch sets the variables. */
function trainjob(settings: ClusterSettings, file: string): string {
  const { image, resources, mounts, volumes } = podOf(settings, 'trainjob')
  const { name, namespace, machines, gpus } = settings
  const job = {
    apiVersion: 'trainer.kubeflow.org/v1alpha1',
    kind: 'TrainJob',
    metadata: { name, namespace },
    spec: {
      runtimeRef: { apiGroup: 'trainer.kubeflow.org', kind: 'ClusterTrainingRuntime', name: 'torch-distributed' },
      trainer: {
        image,
        numNodes: machines,
        numProcPerNode: gpus,
        command: shell(settings, file),
        resourcesPerNode: resources,
      },
      // The runtime's pods, with the volumes.
      runtimePatches: [
        {
          manager: 'unmask.local/cluster',
          trainingRuntimeSpec: {
            template: {
              spec: {
                replicatedJobs: [
                  {
                    name: 'node',
                    template: {
                      spec: {
                        template: { spec: { containers: [{ name: 'node', volumeMounts: mounts }], volumes } },
                      },
                    },
                  },
                ],
              },
            },
          },
        },
      ],
    },
  }
  return comment('trainjob', file) + stringify(job)
}

/** Kubeflow Training Operator v1. */
function pytorchjob(settings: ClusterSettings, file: string): string {
  const { image, resources, mounts, volumes } = podOf(settings, 'pytorchjob')
  const { name, namespace, machines, gpus } = settings
  const replicas = (count: number) => ({
    replicas: count,
    restartPolicy: 'OnFailure',
    template: {
      spec: {
        // The operator waits for a container of this name.
        containers: [
          { name: 'pytorch', image, resources, volumeMounts: mounts, command: shell(settings, file, ...variables) },
        ],
        volumes,
      },
    },
  })
  // RANK of a pod is that of the machine.
  const variables = [
    `export PET_NNODES=${machines} PET_NPROC_PER_NODE=${gpus} PET_NODE_RANK=$RANK`,
    'export PET_MASTER_ADDR=$MASTER_ADDR PET_MASTER_PORT=$MASTER_PORT',
  ]
  const job = {
    apiVersion: 'kubeflow.org/v1',
    kind: 'PyTorchJob',
    metadata: { name, namespace },
    spec: {
      nprocPerNode: String(gpus),
      pytorchReplicaSpecs: { Master: replicas(1), ...(machines > 1 ? { Worker: replicas(machines - 1) } : {}) },
    },
  }
  return comment('pytorchjob', file) + stringify(job)
}

/** A Python file for `ray job submit -- python FILE`: a task on each machine. */
function ray({ name, machines, gpus, folder, setup, port }: ClusterSettings, file: string): string {
  const lines = ['set -eu', `cd "${folder}"`, ...setup, `exec ${run(file)}`].join('\n')
  return `${comment('ray', file)}# ray job submit --submission-id ${name} -- python THIS_FILE
import os
import subprocess

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

MACHINES, GPUS, PORT = ${machines}, ${gpus}, ${port}
COMMAND = ${JSON.stringify(lines)}


@ray.remote(num_gpus=GPUS, max_retries=0)
def address():
    return ray.util.get_node_ip_address()


@ray.remote(num_gpus=GPUS, max_retries=0)
def work(rank, head):
    variables = {
        "PET_NNODES": MACHINES,
        "PET_NPROC_PER_NODE": GPUS,
        "PET_NODE_RANK": rank,
        "PET_MASTER_ADDR": head,
        "PET_MASTER_PORT": PORT,
    }
    env = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    subprocess.run(["bash", "-c", COMMAND], env=env, check=True)


ray.init()
group = placement_group([{"GPU": GPUS}] * MACHINES, strategy="STRICT_SPREAD")
ray.get(group.ready())
places = [
    PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
    for index in range(MACHINES)
]
head = ray.get(address.options(scheduling_strategy=places[0]).remote())
ray.get([work.options(scheduling_strategy=place).remote(rank, head) for rank, place in enumerate(places)])
`
}

function skypilot({ name, machines, gpus, gpu, folder, setup, port }: ClusterSettings, file: string): string {
  const task = {
    name,
    num_nodes: machines,
    resources: { accelerators: `${gpu}:${gpus}` },
    ...(setup.length > 0 ? { setup: `${setup.join('\n')}\n` } : {}),
    run: `${[
      'set -eu',
      `cd "${folder}"`,
      `export PET_NNODES=$SKYPILOT_NUM_NODES PET_NPROC_PER_NODE=${gpus} PET_NODE_RANK=$SKYPILOT_NODE_RANK`,
      `export PET_MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1) PET_MASTER_PORT=${port}`,
      run(file),
    ].join('\n')}\n`,
  }
  return comment('skypilot', file) + stringify(task)
}
