// Products with several matrices that have one input, such as queries, keys and values, as one product with all their rows: fewer
// nodes and less waiting of threads. For programs that are only run. Knows names of tensors, not where their values are.
import { type InputAttributes, inputOperation } from '../graph/ops/input.ts'
import { joinProducts, matrixOf, productsOfOneInput } from '../graph/ops/quantized.ts'
import type { Node } from '../graph/tensor.ts'
import { quantizedMatrix } from './weights.ts'

/** The name under which the matrices `names` are one. */
export const joinedName = (names: readonly string[]): string => names.join('+')

/**
 * The nodes of a program with products joined where `mayJoin` has the matrices of these names as one, `joinedName`. Other
 * nodes stay in their order.
 */
export function joinNodes(nodes: readonly Node[], mayJoin: (names: readonly string[]) => boolean): Node[] {
  const joined = new Map<Node, Node[]>()
  for (const group of productsOfOneInput(nodes)) {
    const matrices = group.map(matrixOf)
    const names = matrices.map(({ packed }) => (packed.node.attributes as InputAttributes).name)
    if (!mayJoin(names)) continue
    const rows = matrices.reduce((sum, { packed }) => sum + Number(packed.shape[0]), 0)
    const [{ format, width }] = matrices
    const product = joinProducts(group, quantizedMatrix(joinedName(names), [rows, width], format))
    const [, ...stored] = product.inputs
    for (const node of group) joined.set(node, [])
    joined.set(group[0], [...stored.map(({ node }) => node), product])
  }
  const all = nodes.flatMap((node) => joined.get(node) ?? [node])
  const used = new Set(all.flatMap(({ inputs }) => inputs.map(({ node }) => node)))
  return all.filter((node) => node.operation !== (inputOperation as unknown) || used.has(node))
}
