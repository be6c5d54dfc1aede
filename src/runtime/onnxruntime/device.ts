// Devices beside the processor: letting a session use one, and saying what is missing where it cannot be used.
import type { Device } from '../../core/types.ts'
import { api, check } from './api.ts'
import { library } from './library.ts'

/** The machine has no device of the kind that was asked for, or lacks what it needs. */
export class DeviceError extends Error {}

const NEEDS = {
  webgpu: 'a GPU with a driver for Vulkan (Linux), Direct3D 12 (Windows) or Metal (macOS)',
  cuda:
    'an NVIDIA GPU, CUDA 12 with cuDNN 9, and the libraries that onnxruntime-node fetches on Linux x64 when it is installed ' +
    'with "ONNXRUNTIME_NODE_INSTALL=true npm rebuild onnxruntime-node"',
}

/** Lets the device run what it has kernels for. */
export function useDevice(options: bigint, device: Exclude<Device, 'cpu'>): void {
  try {
    if (device === 'webgpu') api.SessionOptionsAppendExecutionProvider(options, 'WebGPU', null, null, 0)
    else check(library.func('OrtSessionOptionsAppendExecutionProvider_CUDA', 'void *', ['void *', 'int'])(options, 0))
  } catch (error) {
    throw new DeviceError(
      `--device ${device} cannot be used here; it needs ${NEEDS[device]}. ONNX Runtime says: ${firstLine(error)}`,
    )
  }
}

/** The error of a run: where it says that the device does not compute in float16, one that says what to do. */
export function withoutHalf(device: Device, error: unknown): unknown {
  if (device === 'cpu' || !(error instanceof Error) || !/requires f16/.test(error.message)) return error
  return new DeviceError(
    `--device ${device}: this device, or its driver, does not compute in float16 (WebGPU's feature shader-f16), as matrices ` +
      'that are not quantised need it there; leave --device out, or quantise the model first (unmask quantize). ' +
      `ONNX Runtime says: ${firstLine(error)}`,
  )
}

const firstLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n')[0]
