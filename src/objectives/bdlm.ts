// Block diffusion: `[x_t(1) ... x_t(K) ; x_0]`, each noised block predicted from itself and the earlier clean blocks.
import { blockDiffusion } from '../diffusion/attention.ts'
import { type DenoisingSettings, denoising, type Noised } from './denoising.ts'
import { tokenLoss } from './token-loss.ts'
import type { Objective } from './types.ts'

export interface BdlmVariant extends Noised {
  kind: 'bdlm'
  blockSize: number
  /** No block crosses a tile of the attention. */
  aligned: boolean
}

export const bdlm: Objective<DenoisingSettings, BdlmVariant> = {
  ...denoising<BdlmVariant>({
    cleanCopy: true,
    variant: ({ blockSize, finalBlockSize }, noised) => ({
      kind: 'bdlm',
      blockSize,
      aligned: finalBlockSize % blockSize === 0,
      ...noised,
    }),
  }),
  trace: (model, weights, variant, sizes) =>
    tokenLoss(model, weights, {
      ...sizes,
      ...variant,
      copies: variant.copies + 1,
      attend: (rows) => blockDiffusion(rows, variant, model.dimensions),
    }),
}
