// What golden cases run on: ONNX Runtime, or PyTorch in the Python that UNMASK_PYTHON names.
import type { TensorData } from '../../src/core/types.ts'
import type { Program } from '../../src/graph/program.ts'
import type { Model } from '../../src/models/index.ts'
import type { Variant } from '../../src/objectives/index.ts'
import type { Sizes } from '../../src/objectives/types.ts'
import type { Executor } from '../../src/runtime/executor.ts'
import { createExecutor } from '../../src/runtime/onnxruntime/executor.ts'
import { startTorch } from '../../src/runtime/torch/process.ts'
import { runProgram } from '../../src/runtime/torch/run.ts'
import { lossProgram, objectiveProgram } from '../../src/train/graph.ts'
import { createStepper, type Stepper, type StepperOptions } from '../../src/train/stepper.ts'
import { createTorchStepper } from '../../src/train/torch-stepper.ts'

export const backEndNames = ['onnxruntime', 'torch'] as const
export type BackEndName = (typeof backEndNames)[number]

type Tensors = Record<string, TensorData>

export interface BackEnd {
  run(program: Program, feeds: Tensors): Promise<Tensors>
  /** `grad.<parameter>` of an objective's loss. */
  gradients(model: Model, objective: Variant, sizes: Sizes, feeds: Tensors): Promise<Tensors>
  stepper(model: Model, weights: Parameters<typeof createStepper>[2], options: StepperOptions): Promise<Stepper>
  /** What decodes; undefined where that is not there. */
  executor: Executor | undefined
  dispose(): Promise<void>
}

export const openBackEnd = (name: BackEndName): Promise<BackEnd> => (name === 'torch' ? torch() : onnxruntime())

async function onnxruntime(): Promise<BackEnd> {
  const executor = createExecutor()
  async function run(program: Program, feeds: Tensors): Promise<Tensors> {
    const session = await executor.load(program, { optimize: false })
    try {
      return await session.run(feeds, Object.fromEntries(Object.keys(program.outputs).map((output) => [output, null])))
    } finally {
      await session.release()
    }
  }
  return {
    run,
    gradients: (model, objective, sizes, feeds) =>
      run(objectiveProgram(model, objective, sizes, { gradients: true }), feeds),
    stepper: (model, weights, options) => createStepper(executor, model, weights, options),
    executor,
    dispose: () => executor.dispose(),
  }
}

async function torch(): Promise<BackEnd> {
  const process = await startTorch()
  const run = async (program: Program, feeds: Tensors, gradientsOf?: string): Promise<Tensors> =>
    Object.fromEntries(await runProgram(process, program, new Map(Object.entries(feeds)), gradientsOf))
  return {
    run,
    gradients: (model, objective, sizes, feeds) => run(lossProgram(model, objective, sizes, {}), feeds, 'objective'),
    // The stepper would end the process that the other cases go on with.
    stepper: (model, weights, options) =>
      createTorchStepper({ ...process, dispose: async () => undefined }, model, weights, {
        ...options,
        dtype: 'float32',
        threads: 0,
      }),
    executor: undefined,
    dispose: () => process.dispose(),
  }
}
