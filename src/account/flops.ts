// How many floating-point operations training takes, by the usual estimate.
import type { Model } from '../models/types.ts'

/** What of a micro-batch the estimate reads. */
interface Work {
  feeds: Readonly<Record<string, { shape: readonly number[] } | object>>
  counts?: Readonly<Record<string, number>>
  objective?: object
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

/**
 * The floating-point operations of the forward and backward pass of a micro-batch: 2 N in the forward pass and 4 N in the
 * backward pass for each position, N being the parameters of its products (Kaplan et al., 2020, arXiv 2001.08361, section 2.1).
 *
 * A position is one that the layers compute, noised copies and padding included; the output head is counted where something is
 * predicted, of experts those that a position goes to. Where an adapter is trained, the model's own weights take 4 N: they have no
 * gradients of their own. Not counted, as there: attention's products of positions with positions, norms, embeddings, the
 * optimiser. Of the last layer all positions are counted.
 *
 * @param adapter Parameters of the low-rank weights that are trained; undefined where the model itself is.
 */
export function updateFlops(model: Model, adapter: number | undefined): (work: Work) => number {
  const { parameters, embeddingName, mixtures } = model
  const { vocabSize, hiddenSize } = model.dimensions
  let matrices = 0
  for (const [name, shape] of parameters)
    if (shape.length > 1 && name !== embeddingName && !isHead(shape, vocabSize, hiddenSize)) matrices += product(shape)
  matrices -= mixtures.reduce((sum, { experts, topK, expertSize }) => sum + (experts - topK) * expertSize, 0)
  const head = vocabSize * hiddenSize
  const own = adapter === undefined ? 6 : 4
  return ({ feeds, counts = {}, objective = {} }) => {
    const positions = sizeOf(feeds.input_ids)
    const masks = sizeOf(feeds.mask_positions)
    const inLayers = own * matrices + 6 * (adapter ?? 0)
    // An accelerator's masks come beside rows that only the base's forward pass sees.
    const layers = masks > 0 ? positions * 2 * matrices + masks * inLayers : positions * inLayers
    // Forwards in which the model fills in its own predictions.
    const filled = 'turns' in objective ? 2 * Number(objective.turns) * positions * matrices : 0
    return layers + filled + own * head * (counts.loss_positions ?? 0)
  }
}

const isHead = ([rows, columns]: readonly number[], vocabSize: number, hiddenSize: number): boolean =>
  rows === vocabSize && columns === hiddenSize

const sizeOf = (feed: { shape: readonly number[] } | object | undefined): number =>
  feed && 'shape' in feed ? product(feed.shape) : 0
