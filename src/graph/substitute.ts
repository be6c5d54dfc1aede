// A traced graph with some of its tensors replaced by others, such as inputs that hold their values. Knows no operations.
import { topologicalOrder } from './program.ts'
import type { Node, Tensor } from './tensor.ts'

/**
 * `outputs` as they are computed when each key of `given` is replaced by its value, a tensor of the same shape. Nodes that
 * do not depend on a key are shared with the original.
 */
export function substitute(outputs: readonly Tensor[], given: ReadonlyMap<Tensor, Tensor>): Tensor[] {
  const replaced = new Map(given)
  const now = (tensor: Tensor): Tensor => replaced.get(tensor) ?? tensor
  for (const node of topologicalOrder(outputs)) {
    if (!node.inputs.some((tensor) => replaced.has(tensor))) continue
    const copy: Node = { ...node, inputs: node.inputs.map(now), outputs: [] }
    for (const { dtype, shape, index } of node.outputs) copy.outputs.push({ dtype, shape, index, node: copy })
    for (const tensor of node.outputs) if (!replaced.has(tensor)) replaced.set(tensor, copy.outputs[tensor.index])
  }
  return outputs.map(now)
}
