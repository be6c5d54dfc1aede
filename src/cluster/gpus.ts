// GPUs that training can be planned for, as their makers' data sheets have them: dense bfloat16, without sparsity.
import { SettingError } from '../core/types.ts'

export interface Gpu {
  /** Bytes. */
  memory: number
  /** Floating-point operations per second in bfloat16, dense. */
  flops: number
  /** Watts at full load. */
  watts: number
}

const GB = 1e9

/** Sources: NVIDIA data sheets of A100 80GB SXM, H100 SXM, H200 SXM, B200 SXM and L40S; AMD's of MI300X. */
export const gpus: Readonly<Record<string, Gpu>> = {
  A100: { memory: 80 * GB, flops: 312e12, watts: 400 },
  H100: { memory: 80 * GB, flops: 989e12, watts: 700 },
  H200: { memory: 141 * GB, flops: 989e12, watts: 700 },
  B200: { memory: 180 * GB, flops: 2250e12, watts: 1000 },
  L40S: { memory: 48 * GB, flops: 362e12, watts: 350 },
  MI300X: { memory: 192 * GB, flops: 1307e12, watts: 750 },
}

/** `H100:64` as a name and a number. Throws SettingError where it is not one. */
export function parseGpus(text: string): { name: string; gpu: Gpu; count: number } {
  const [, name = '', number = '1'] = /^([A-Za-z0-9]+)(?::(\d{1,6}))?$/.exec(text) ?? []
  const gpu = Object.hasOwn(gpus, name) ? gpus[name] : undefined
  const count = Number(number)
  if (!gpu || count < 1)
    throw new SettingError(
      'gpus',
      `expected a GPU and how many, such as H100:64, not ${JSON.stringify(text)}; known: ${Object.keys(gpus).join(', ')}`,
    )
  return { name, gpu, count }
}
