// The training objectives by name.
import { ar } from './ar.ts'
import { bdlm } from './bdlm.ts'
import type { DenoisingSettings } from './denoising.ts'
import { mdlm } from './mdlm.ts'
import { strided } from './strided.ts'
import type { Objective } from './types.ts'

export const objectives = { ar, mdlm, bdlm, strided }

/** What `objective` of a recipe can be: `diffusion` is `bdlm`, or `mdlm` where a block is the whole row. */
export type TrainedObjective = Exclude<ObjectiveName, 'bdlm' | 'mdlm' | 'strided'> | 'diffusion'

const isOfRecipe = (name: string): name is Exclude<TrainedObjective, 'diffusion'> =>
  !['bdlm', 'mdlm', 'strided'].includes(name)

export const trainedObjectives: readonly TrainedObjective[] = [
  'diffusion',
  ...Object.keys(objectives).filter(isOfRecipe),
]

/** The objective of a step. */
export function objectiveAt(
  name: TrainedObjective,
  blockSize: number,
  length: number,
): Objective<DenoisingSettings, Variant> {
  if (name !== 'diffusion') return objectives[name]
  return blockSize >= length
    ? (mdlm as Objective<DenoisingSettings, Variant>)
    : (bdlm as Objective<DenoisingSettings, Variant>)
}

export type ObjectiveName = keyof typeof objectives

/** What a program can be traced for. */
export type Variant = { [K in ObjectiveName]: Parameters<(typeof objectives)[K]['trace']>[2] }[ObjectiveName]
