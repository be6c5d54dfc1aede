// The feed-forward part of a layer that is a mixture of experts: a router that chooses a few of many SwiGLUs for each
// position, and perhaps experts that all positions share. Knows nothing about the rest of the layer.

import { ConfigError, type ModelConfig } from '../core/types.ts'
import { add, div, exp, mul, sigmoid, sub } from '../graph/ops/elementwise.ts'
import { experts, rowMaximum, selectExperts } from '../graph/ops/experts.ts'
import { linear } from '../graph/ops/linear.ts'
import { sum } from '../graph/ops/reduce.ts'
import { scope, type Tensor } from '../graph/tensor.ts'
import { reader } from './config.ts'
import { denseMlp, type Mlp } from './mlp.ts'

export interface MoeOptions {
  experts: number
  /** Experts that each position goes to. */
  topK: number
  /** Width of an expert. */
  intermediate: number
  score: 'sigmoid' | 'softmax'
  /** Scores of the chosen experts are divided by their sum. */
  normalize: boolean
  /** Factor on the weights of the experts. Default 1. */
  scale?: number
  /** Equal groups of experts, and those that a position may choose from. Default: one. */
  groups?: number
  topGroups?: number
  /** `mlp.gate.expert_bias` is added to the scores when experts are chosen, and only then. Default false. */
  bias?: boolean
  /** Experts that every position goes to, as one of their joint width. Default 0. */
  shared?: number
}

/** Names, without `.weight`, that the families share. */
const names = {
  router: 'mlp.gate',
  bias: 'mlp.gate.expert_bias',
  expert: (index: number) => ({
    gate: `mlp.experts.${index}.gate_proj`,
    up: `mlp.experts.${index}.up_proj`,
    down: `mlp.experts.${index}.down_proj`,
  }),
  shared: {
    gate: 'mlp.shared_experts.gate_proj',
    up: 'mlp.shared_experts.up_proj',
    down: 'mlp.shared_experts.down_proj',
  },
}

/** DeepSeek's guard against dividing by zero, which LLaDA2.0's router has too. */
const EPSILON = 1e-20

export function moeMlp(hidden: number, options: MoeOptions): Mlp {
  const {
    topK,
    intermediate,
    score,
    normalize,
    scale = 1,
    groups = 1,
    topGroups = 1,
    bias = false,
    shared = 0,
  } = options
  const each = Array.from({ length: options.experts }, (_, i) => names.expert(i))
  const sharedMlp = shared > 0 ? denseMlp(hidden, shared * intermediate, { names: names.shared }) : undefined
  return {
    parameters: [
      [`${names.router}.weight`, [options.experts, hidden]],
      ...(bias ? [[names.bias, [options.experts]] as const] : []),
      ...each.flatMap((expert) => denseMlp(hidden, intermediate, { names: expert }).parameters),
      ...(sharedMlp?.parameters ?? []),
    ],
    buffers: bias ? [names.bias] : [],
    mixture: {
      experts: options.experts,
      topK,
      router: `${names.router}.weight`,
      bias: bias ? names.bias : undefined,
      expertSize: 3 * hidden * intermediate,
    },
    trace(y, layer, onRouting) {
      const logits = linear(y, layer(`${names.router}.weight`))
      const scores = score === 'sigmoid' ? sigmoid(logits) : softmax(logits)
      const ranked = bias ? add(scores, layer(names.bias)) : scores
      const selected = selectExperts(ranked, { topK, groups, topGroups })
      onRouting({ scores, selected })
      let weights = mul(scores, selected)
      if (normalize) weights = div(weights, add(sumRows(weights), EPSILON))
      if (scale !== 1) weights = mul(weights, scale)
      const all = each.map(({ gate, up, down }) => ({
        gate: layer(`${gate}.weight`),
        up: layer(`${up}.weight`),
        down: layer(`${down}.weight`),
      }))
      const mixed = scope('experts', () => experts(y, { weights, selected, topK }, all))
      return sharedMlp
        ? add(
            mixed,
            scope('shared_experts', () => sharedMlp.trace(y, layer, onRouting)),
          )
        : mixed
    },
  }
}

const sumRows = (x: Tensor): Tensor => sum(x, [x.shape.length - 1], true)

function softmax(logits: Tensor): Tensor {
  const powers = exp(sub(logits, rowMaximum(logits)))
  return div(powers, sumRows(powers))
}

/** Throws UserError where a router cannot choose what the config asks for. */
export function checkRouter(config: ModelConfig, { experts, topK, groups = 1, topGroups = 1 }: MoeOptions): void {
  reader(config).divides('n_group', groups, 'num_experts', experts)
  if (topGroups > groups) throw new ConfigError(`topk_group (${topGroups}) must not be more than n_group (${groups})`)
  if (topK > (experts / groups) * topGroups)
    throw new ConfigError(
      `num_experts_per_tok (${topK}) must not be more than the ${(experts / groups) * topGroups} experts that a position may choose from`,
    )
}
