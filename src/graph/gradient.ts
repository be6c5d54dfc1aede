// Reverse-mode differentiation of a traced graph. Knows no particular operation but how gradients are summed.
import { add } from './ops/elementwise.ts'
import { scalar } from './ops/input.ts'
import { after, scatterInto } from './ops/layout.ts'
import { topologicalOrder } from './program.ts'
import { shapeText } from './shape.ts'
import { apply, type Node, scope, type Tensor } from './tensor.ts'

export interface GradientOptions {
  /**
   * Gradient checkpointing (Chen et al., 2016): names the segment that a node belongs to, by its scope. What a segment
   * computed is not kept for the backward pass but computed again there from what entered the segment. Default: none.
   */
  segment?: (scope: string) => string | undefined
}

/**
 * Gradients of a scalar `loss` with respect to `wanted`, in the same order.
 * Throws where one of them does not reach the loss or an operation on the way has no gradient.
 */
export function gradients(loss: Tensor, wanted: readonly Tensor[], options: GradientOptions = {}): Tensor[] {
  if (loss.shape.length !== 0) throw new Error(`the loss must be a scalar, got ${shapeText(loss.shape)}`)
  return pullback(loss, scalar(1), wanted, options)
}

/** `gradients` of something that depends on `y`, of which the gradient with respect to `y` is `dy`. */
function pullback(y: Tensor, dy: Tensor, wanted: readonly Tensor[], { segment }: GradientOptions = {}): Tensor[] {
  const order = topologicalOrder([y])
  const needed = new Set<Node>(wanted.map((tensor) => tensor.node))
  for (const node of order) if (node.inputs.some((input) => needed.has(input.node))) needed.add(node)
  const again = segment && recomputation(segment, needed)

  const partials = new Map<Tensor, Tensor[]>([[y, [dy]]])
  const total = (tensor: Tensor): Tensor | undefined => partials.get(tensor)?.reduce(accumulate)
  for (const node of [...order].reverse()) {
    if (!needed.has(node) || node.inputs.length === 0) continue
    const outputs = node.outputs.map(total)
    if (outputs.every((gradient) => gradient === undefined)) continue
    const operation = node.operation
    if (!operation.gradient) throw new Error(`${operation.name}${node.scope && ` in ${node.scope}`} has no gradient`)
    const inputs = scope(node.scope ? `gradient.${node.scope}` : 'gradient', () =>
      (operation.gradient as NonNullable<typeof operation.gradient>)({
        ...(again?.(node, outputs.find((gradient) => gradient !== undefined) as Tensor) ?? node),
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

/**
 * The values of a node as computed anew in the backward pass: its segment's nodes are traced a second time, from what
 * enters the segment, which is tied to the first gradient that arrives there so that nothing is computed early.
 */
function recomputation(segment: (scope: string) => string | undefined, needed: ReadonlySet<Node>) {
  const copies = new Map<Node, Node>()
  const entries = new Map<string, Map<Tensor, Tensor>>()
  return (node: Node, arriving: Tensor): Pick<Node, 'inputs' | 'outputs'> | undefined => {
    const name = segment(node.scope)
    if (name === undefined) return undefined
    const entry = entries.get(name) ?? new Map<Tensor, Tensor>()
    entries.set(name, entry)
    const value = (tensor: Tensor): Tensor => {
      if (segment(tensor.node.scope) === name && tensor.node.inputs.length > 0)
        return copy(tensor.node).outputs[tensor.index]
      // Parameters, constants and masks are there anyway; activations wait for the gradient.
      if (tensor.node.inputs.length === 0 || !needed.has(tensor.node)) return tensor
      const tied = entry.get(tensor) ?? after(tensor, arriving)
      entry.set(tensor, tied)
      return tied
    }
    const copy = (original: Node): Node => {
      const known = copies.get(original)
      if (known) return known
      const inputs = original.inputs.map(value)
      const [first] = scope(`recompute.${original.scope}`, () =>
        apply(original.operation, inputs, original.attributes as never),
      )
      copies.set(original, first.node)
      return first.node
    }
    return copy(node)
  }
}
