// The training objectives by name.
import { ar } from './ar.ts'
import { type BdlmVariant, bdlm } from './bdlm.ts'
import type { DenoisingSettings } from './denoising.ts'
import { type MdlmVariant, mdlm } from './mdlm.ts'
import { strided } from './strided.ts'
import type { Objective } from './types.ts'

export const objectives = { ar, mdlm, bdlm, strided }

/** Masked diffusion at a block size: of whole documents where a block is a row. */
export const diffusionAt = (
  blockSize: number,
  length: number,
): Objective<DenoisingSettings, BdlmVariant | MdlmVariant> => (blockSize >= length ? mdlm : bdlm)

export type ObjectiveName = keyof typeof objectives

/** What a program can be traced for. */
export type Variant = { [K in ObjectiveName]: Parameters<(typeof objectives)[K]['trace']>[2] }[ObjectiveName]
