// A process that uses an executor and ends without disposing of it; see executor.test.ts.
import { neg } from '../../src/graph/ops/elementwise.ts'
import { input } from '../../src/graph/ops/input.ts'
import { createExecutor } from '../../src/runtime/onnxruntime/executor.ts'

const executor = createExecutor({ threads: 1 })
const program = { name: 'negate', outputs: { y: neg(input('x', 'float32', [1])) } }
const session = await executor.load(program)
// Nothing but the run under way keeps the process from ending here.
session
  .run({ x: { dtype: 'float32', shape: [1], data: Float32Array.of(3) } }, { y: null })
  .then(({ y }) => console.log(`y = ${y.data[0]}`))
