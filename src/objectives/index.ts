// The training objectives by name.
import type { ModelConfig } from '../core/types.ts'
import { hasEdits } from '../diffusion/edits.ts'
import { ar } from './ar.ts'
import { bdlm } from './bdlm.ts'
import type { DenoisingSettings } from './denoising.ts'
import { dpo } from './dpo.ts'
import { edits } from './edits.ts'
import { hybrid } from './hybrid.ts'
import { mdlm } from './mdlm.ts'
import { policy } from './policy.ts'
import { strided } from './strided.ts'
import { tiles } from './tiles.ts'
import type { Objective } from './types.ts'

/** Those that `objective` of a recipe names, beside `diffusion`. */
const named = { ar, hybrid }

/** What a program can be traced for. */
export const objectives = { ...named, bdlm, dpo, edits, mdlm, policy, strided, tiles }

type Objectives = typeof objectives
export type Variant = { [K in keyof Objectives]: Parameters<Objectives[K]['trace']>[2] }[keyof Objectives]

/** What `objective` of a recipe can be; `objectiveAt` says what `diffusion` is. */
export type TrainedObjective = keyof typeof named | 'diffusion'

export const trainedObjectives: readonly TrainedObjective[] = [
  'diffusion',
  ...(Object.keys(named) as (keyof typeof named)[]),
]

/** What a trained model needs and is measured by. */
interface Traits {
  /** It has a mask token, and predicts what stands there. */
  masks: boolean
  /** Its likelihood is exact, one token after the other; otherwise the bound of block diffusion is measured. */
  exact: boolean
}

export const traits: Readonly<Record<TrainedObjective, Traits>> = {
  diffusion: { masks: true, exact: false },
  ar: { masks: false, exact: true },
  hybrid: { masks: true, exact: true },
}

/** The objective that a model was trained with, as its config.json says. */
export function objectiveOf({ mask_token_id, causal_context }: ModelConfig): TrainedObjective {
  if (typeof mask_token_id !== 'number') return 'ar'
  return causal_context === true ? 'hybrid' : 'diffusion'
}

/**
 * The objective of a step. `diffusion` is `mdlm` where a block is the whole row, `tiles` where documents start at multiples of
 * the block size (`edits` where noised copies hold wrong tokens), else `bdlm`.
 */
export function objectiveAt(
  name: TrainedObjective,
  { blockSize, finalBlockSize, noise }: Pick<DenoisingSettings, 'blockSize' | 'finalBlockSize' | 'noise'>,
  length: number,
): Objective<DenoisingSettings, Variant> {
  if (name !== 'diffusion') return named[name]
  if (blockSize >= length) return mdlm
  if (finalBlockSize % blockSize !== 0 || length % blockSize !== 0) return bdlm
  return hasEdits(noise) ? edits : tiles
}
