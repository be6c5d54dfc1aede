// Where a training step spends its time, from the traces that ONNX Runtime writes. Knows node names
// (`<scope>/<operation>/<type>_<n>`) and operator types, not models.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Executor, Session } from '../src/runtime/executor.ts'

/** Shares are of the wall time of the steps; what is missing to 1 was spent outside the kernels. */
export interface Profile {
  secondsPerStep: number
  shares: { matmul: number; attention: number; elementwise: number; copies: number }
  /** The parts of `attention`. */
  attention: { matmul: number; elementwise: number; copies: number }
  /** Runs of the programs that only touch parameters, gradients and moments. */
  optimizerShare: number
  /** Floating-point operations of the products of one step. */
  flopsPerStep: number
  /** Seconds per step inside those products. */
  matmulSecondsPerStep: number
  /** Seconds per step of each operation and operator type, the largest first. */
  operators: [name: string, seconds: number][]
}

const PRODUCTS = new Set(['MatMul', 'Gemm', 'FusedMatMul'])
const COPIES = new Set([
  'Cast',
  'Concat',
  'Expand',
  'Gather',
  'GatherElements',
  'Identity',
  'Pad',
  'Reshape',
  'ScatterElements',
  'ScatterND',
  'Slice',
  'Split',
  'Squeeze',
  'Transpose',
  'Unsqueeze',
])
const ATTENTION = new Set([
  'attention',
  'attentionGradient',
  'blockDiffusionAttention',
  'blockDiffusionAttentionGradient',
  'tileAttention',
  'tileAttentionGradient',
  'maskBias',
  'blockColumns',
  'tileColumns',
])

/** Programs of the optimiser; the others are objectives. */
const OPTIMIZER = new Set(['adamw', 'accumulate', 'norm'])

interface TraceEvent {
  cat: string
  name: string
  ts: number
  dur: number
  args?: { op_name?: string; input_type_shape?: Shapes; output_type_shape?: Shapes }
}
type Shapes = Record<string, number[]>[]

/** An executor like `executor` whose sessions are profiled into `folder`. */
export function profiled(executor: Executor, folder: string) {
  const sessions: { session: Session; prefix: string; program: string }[] = []
  return {
    executor: {
      ...executor,
      async load(program, options = {}) {
        const prefix = `session${sessions.length}`
        const session = await executor.load(program, { ...options, profile: join(folder, prefix) })
        sessions.push({ session, prefix, program: program.name })
        return session
      },
    } satisfies Executor as Executor,

    /**
     * Ends profiling and reads the traces of `steps` steps that took `seconds`, after `skipped` steps that do not
     * count. The sessions cannot be used any more.
     */
    async finish({ steps, seconds, skipped }: { steps: number; seconds: number; skipped: number }): Promise<Profile> {
      for (const { session } of sessions) await session.endProfiling()
      const files = await readdir(folder)
      const microseconds = new Map<string, number>()
      let optimizer = 0
      let flops = 0
      let inProducts = 0
      for (const { prefix, program } of sessions) {
        const file = files.find((name) => name.startsWith(`${prefix}_`))
        if (!file) throw new Error(`ONNX Runtime wrote no profile of ${program}`)
        const all = JSON.parse(await readFile(join(folder, file), 'utf8')) as TraceEvent[]
        const runs = all.filter(({ name }) => name === 'model_run').sort((a, b) => a.ts - b.ts)
        // A program runs once a step.
        const counted = runs.slice(skipped)
        if (counted.length === 0) continue
        const events = all.filter(({ ts }) => ts >= counted[0].ts)
        if (OPTIMIZER.has(program)) for (const { dur } of counted) optimizer += dur
        for (const event of kernels(events)) {
          const type = event.args?.op_name as string
          const operation = OPTIMIZER.has(program) ? program : operationOf(event.name)
          const key = `${operation}/${type}`
          microseconds.set(key, (microseconds.get(key) ?? 0) + event.dur)
          if (!PRODUCTS.has(type)) continue
          flops += productFlops(event)
          inProducts += event.dur
        }
      }
      const share = (wanted: (operation: string, type: string) => boolean): number => {
        let sum = 0
        for (const [key, dur] of microseconds) {
          const [operation, type] = key.split('/')
          if (wanted(operation, type)) sum += dur
        }
        return sum / 1e6 / seconds
      }
      const kinds = (inside: boolean) => ({
        matmul: share((operation, type) => ATTENTION.has(operation) === inside && PRODUCTS.has(type)),
        elementwise: share(
          (operation, type) => ATTENTION.has(operation) === inside && !PRODUCTS.has(type) && !COPIES.has(type),
        ),
        copies: share((operation, type) => ATTENTION.has(operation) === inside && COPIES.has(type)),
      })
      return {
        secondsPerStep: seconds / steps,
        shares: { ...kinds(false), attention: share((operation) => ATTENTION.has(operation)) },
        attention: kinds(true),
        optimizerShare: optimizer / 1e6 / seconds,
        flopsPerStep: flops / steps,
        matmulSecondsPerStep: inProducts / 1e6 / steps,
        operators: [...microseconds]
          .map(([name, dur]): [string, number] => [name, dur / 1e6 / steps])
          .sort((a, b) => b[1] - a[1]),
      }
    },
  }
}

/** Kernel events of a session, without those inside a subgraph: their time is in the node that holds it. */
function* kernels(events: readonly TraceEvent[]): Generator<TraceEvent> {
  const own = events.filter(({ cat, name }) => cat === 'Node' && name.endsWith('_kernel_time'))
  own.sort((a, b) => a.ts - b.ts || b.dur - a.dur)
  let end = Number.NEGATIVE_INFINITY
  for (const event of own) {
    if (event.ts < end && event.ts + event.dur <= end) continue
    end = Math.max(end, event.ts + event.dur)
    yield event
  }
}

/** `<scope>/<operation>/<type>_<n>_kernel_time` -> operation */
const operationOf = (name: string): string => name.split('/').at(-2) ?? ''

/** 2 M N K of a product: its output is [..., M, N], and K is what is left of the first operand's size. */
function productFlops({ args }: TraceEvent): number {
  const shapeOf = (shapes: Shapes | undefined) => Object.values(shapes?.[0] ?? {})[0] ?? []
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1)
  const output = shapeOf(args?.output_type_shape)
  const rows = size(output.slice(0, -1))
  return rows === 0 ? 0 : 2 * size(output) * (size(shapeOf(args?.input_type_shape)) / rows)
}
