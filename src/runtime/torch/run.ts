// Runs a whole program once in PyTorch: inference, a loss, or a loss with its gradients.
import type { TensorData } from '../../core/types.ts'
import type { Program } from '../../graph/program.ts'
import { serializeProgram } from '../../graph/serialize.ts'
import type { TorchProcess } from './process.ts'

/** Loads a program under `id`, by which requests name it; in place of the others, unless `alone` is false. */
export async function loadProgram(torch: TorchProcess, id: string, program: Program, alone = true): Promise<void> {
  const { json, constants } = serializeProgram(program)
  const files = [await torch.putFile(json), await torch.putFile(constants)]
  await torch.request('load', { id, program: files[0], constants: files[1], alone })
  await torch.remove(...files)
}

/**
 * All outputs of a program, weights among the feeds. With `gradientsOf`, the name of a scalar output, also `grad.<input>` for
 * every float32 feed that it depends on.
 */
export async function runProgram(
  torch: TorchProcess,
  program: Program,
  feeds: ReadonlyMap<string, TensorData>,
  gradientsOf?: string,
): Promise<Map<string, TensorData>> {
  await loadProgram(torch, program.name, program)
  const [file, out] = [await torch.put(feeds), torch.file()]
  await torch.request('run', { id: program.name, feeds: file, out, gradients_of: gradientsOf ?? null })
  await torch.remove(file)
  return torch.take(out)
}
