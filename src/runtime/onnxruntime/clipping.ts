// Processors without VNNI's instructions clip sums of two products of unsigned and signed 8-bit numbers to 16 bits. ONNX Runtime
// can do without those instructions, more slowly. It does not know which processors need that, so a product is tried.

import type { BlockFormat } from '../../core/types.ts'
import { input } from '../../graph/ops/input.ts'
import { linear } from '../../graph/ops/linear.ts'
import { dequantize } from '../../graph/ops/quantized.ts'
import { type ExportedProgram, exportOnnx } from '../../graph/program.ts'
import type { Session } from '../executor.ts'

/** Whether a program has matrices whose products are sums of whole numbers. */
export const hasIntegerProducts = ({ loaded, externalParameters }: ExportedProgram): boolean =>
  [...loaded.values(), externalParameters].some((inputs) => inputs.some(({ dtype }) => dtype === 'int8'))

const [OUT, WIDTH] = [16, 64]
const FORMAT: BlockFormat = { bits: 8, blockSize: WIDTH, asymmetric: false, activations: 8 }

/** Whether products of the largest numbers are not what they should be. */
export async function clipsProducts(load: (model: Uint8Array) => Promise<Session>): Promise<boolean> {
  const stored = {
    packed: input('numbers', 'int8', [OUT, WIDTH]),
    scales: input('scales', 'float32', [OUT]),
    zeroPoints: undefined,
    offsets: undefined,
  }
  const matrix = dequantize(stored, { format: FORMAT, width: WIDTH })
  const y = linear(input('x', 'float32', ['R', WIDTH]), matrix)
  const { model } = exportOnnx(
    { name: 'largest products', outputs: { y } },
    {
      embed: new Map([
        ['numbers', { dtype: 'int8', shape: [OUT, WIDTH], data: new Int8Array(OUT * WIDTH).fill(127) }],
        ['scales', { dtype: 'float32', shape: [OUT], data: new Float32Array(OUT).fill(1) }],
      ]),
    },
  )
  const session = await load(model)
  const x = { dtype: 'float32' as const, shape: [2, WIDTH], data: new Float32Array(2 * WIDTH).fill(1) }
  const outputs = await session.run({ x }, { y: null })
  await session.release()
  return Array.from(outputs.y.data, Number).some((value) => Math.abs(value / (127 * WIDTH) - 1) > 0.01)
}
