// Masked diffusion of whole documents: noised copies alone, bidirectional within a document.
import { fullAttention } from '../diffusion/attention.ts'
import { type DenoisingSettings, denoising, type Noised } from './denoising.ts'
import { tokenLoss } from './token-loss.ts'
import type { Objective } from './types.ts'

export interface MdlmVariant extends Noised {
  kind: 'mdlm'
}

export const mdlm = {
  ...denoising<MdlmVariant>({ cleanCopy: false, variant: (_, noised) => ({ kind: 'mdlm', ...noised }) }),
  trace: (model, weights, variant, sizes) =>
    tokenLoss(model, weights, {
      ...sizes,
      ...variant,
      attend: (rows) => fullAttention(rows, variant.copies, model.dimensions),
    }),
} satisfies Objective<DenoisingSettings, MdlmVariant>
