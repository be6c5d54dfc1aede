// Reverse-mode differentiation of a traced graph. Knows no particular operation but how gradients are summed.
import { add } from './ops/elementwise.ts'
import { scalar } from './ops/input.ts'
import { scatterInto } from './ops/layout.ts'
import { topologicalOrder } from './program.ts'
import { shapeText } from './shape.ts'
import { type Node, scope, type Tensor } from './tensor.ts'

/**
 * Gradients of a scalar `loss` with respect to `wanted`, in the same order.
 * Throws where one of them does not reach the loss or an operation on the way has no gradient.
 */
export function gradients(loss: Tensor, wanted: readonly Tensor[]): Tensor[] {
  if (loss.shape.length !== 0) throw new Error(`the loss must be a scalar, got ${shapeText(loss.shape)}`)
  const order = topologicalOrder([loss])
  const needed = new Set<Node>(wanted.map((tensor) => tensor.node))
  for (const node of order) if (node.inputs.some((input) => needed.has(input.node))) needed.add(node)

  const partials = new Map<Tensor, Tensor[]>([[loss, [scalar(1)]]])
  const total = (tensor: Tensor): Tensor | undefined => partials.get(tensor)?.reduce(accumulate)
  for (const node of [...order].reverse()) {
    if (!needed.has(node) || node.inputs.length === 0) continue
    const outputs = node.outputs.map(total)
    if (outputs.every((gradient) => gradient === undefined)) continue
    const operation = node.operation
    if (!operation.gradient) throw new Error(`${operation.name}${node.scope && ` in ${node.scope}`} has no gradient`)
    const inputs = scope(node.scope ? `gradient.${node.scope}` : 'gradient', () =>
      (operation.gradient as NonNullable<typeof operation.gradient>)({
        inputs: node.inputs,
        outputs: node.outputs,
        attributes: node.attributes as never,
        gradients: outputs,
      }),
    )
    node.inputs.forEach((input, i) => {
      const gradient = inputs[i]
      if (gradient === undefined || !needed.has(input.node)) return
      const list = partials.get(input)
      if (list) list.push(gradient)
      else partials.set(input, [gradient])
    })
  }
  return wanted.map((tensor) => {
    const gradient = total(tensor)
    if (!gradient) throw new Error(`a tensor ${shapeText(tensor.shape)} does not reach the loss`)
    return gradient
  })
}

const accumulate = (a: Tensor, b: Tensor): Tensor => scatterInto(a, b) ?? scatterInto(b, a) ?? add(a, b)
