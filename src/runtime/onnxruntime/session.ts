// A session: a model that is loaded, and its runs. It knows tensors, not what the model is.
import type { Device } from '../../core/types.ts'
import { allocator, api, environment, free } from './api.ts'
import { createBinder, joined } from './bindings.ts'
import { useDevice, withoutHalf } from './device.ts'
import { made, pathText } from './memory.ts'
import { giveBack } from './pages.ts'
import { type Output, type Value, viewOf } from './values.ts'
import { createSessionWith, type HeldWeight, inputNames } from './weights.ts'

export interface SessionOptions {
  threads: number
  device: Device
  /** ONNX Runtime's rewriting of the graph. */
  optimize: boolean
  /** Of inputs that are to be constants; the session's from now on. */
  weights: readonly HeldWeight[]
  /** Folder of the files that the model's external data refer to. */
  externalFolder?: string
  /** File prefix of a profile. */
  profile?: string
  /** Products of 8-bit numbers by instructions that never clip. */
  unclipped: boolean
}

export interface Session {
  /**
   * Runs with `feeds`, of which those that the model does not take are passed over, and what is bound. Outputs with a
   * value are written there; of those with null, `read` gets views that are gone when it returns.
   */
  run<T>(
    feeds: Record<string, Value>,
    fetches: Record<string, Value | null>,
    read: (outputs: Record<string, Output>) => T,
  ): T
  /** What all runs have, until the next call: tensors are made once. */
  bind(feeds: Record<string, Value>, fetches: Record<string, Value>): void
  endProfiling(): void
  release(): void
}

/** Loads an ONNX model. */
export function createSession(model: Uint8Array, settings: SessionOptions): Session {
  const { device, weights } = settings
  const session = load(model, settings)
  giveBack(settings.externalFolder)
  const inputs = new Set(inputNames(session))
  const prepare = createBinder()
  const inputsOf = (feeds: Record<string, Value>) => prepare(Object.entries(feeds).filter(([name]) => inputs.has(name)))
  let boundInputs = prepare([])
  let boundOutputs = prepare([])

  return {
    run(feeds, fetches, read) {
      const given = inputsOf(feeds)
      try {
        const fetched = prepare(Object.entries(fetches))
        try {
          const inputNames = joined(boundInputs, given, 'names')
          const inputValues = joined(boundInputs, given, 'values')
          const outputNames = joined(boundOutputs, fetched, 'names')
          const outputValues = joined(boundOutputs, fetched, 'values')
          const inputCount = boundInputs.parts.length + given.parts.length
          const outputCount = boundOutputs.parts.length + fetched.parts.length
          try {
            api.Run(session, null, inputNames, inputValues, inputCount, outputNames, outputCount, outputValues)
          } catch (error) {
            throw withoutHalf(device, error)
          }
          fetched.values.set(outputValues.subarray(boundOutputs.parts.length, outputCount))
          const outputs: Record<string, Output> = {}
          for (const [i, [name, value]] of fetched.parts.entries())
            if (!value) outputs[name] = viewOf(fetched.values[i])
          return read(outputs)
        } finally {
          fetched.release()
        }
      } finally {
        given.release()
      }
    },
    bind(feeds, fetches) {
      const next = [inputsOf(feeds), prepare(Object.entries(fetches))]
      boundInputs.release()
      boundOutputs.release()
      ;[boundInputs, boundOutputs] = next
    },
    endProfiling() {
      free(made((place) => api.SessionEndProfiling(session, allocator, place)))
    },
    release() {
      this.bind({}, {})
      api.ReleaseSession(session)
      for (const weight of weights) weight.release()
    },
  }
}

/** ONNX Runtime's name for the session's entry of the folder of mapped files. */
const FOLDER = 'session.model_external_initializers_file_folder_path'

/** ONNX Runtime's name for taking unsigned weights, whose products do not clip. */
const UNCLIPPED = 'session.x64quantprecision'

const NO_REWRITING = 0
const ALL_REWRITING = 99

function load(
  model: Uint8Array,
  { threads, device, optimize, weights, externalFolder, profile, unclipped }: SessionOptions,
): bigint {
  const options = made((place) => api.CreateSessionOptions(place))
  try {
    if (device !== 'cpu') useDevice(options, device)
    api.SetIntraOpNumThreads(options, threads)
    api.SetSessionGraphOptimizationLevel(options, optimize ? ALL_REWRITING : NO_REWRITING)
    // With memory patterns the first run's buffers and the planned block are both kept.
    api.DisableMemPattern(options)
    if (externalFolder) api.AddSessionConfigEntry(options, FOLDER, externalFolder)
    if (unclipped) api.AddSessionConfigEntry(options, UNCLIPPED, '1')
    if (profile) api.EnableProfiling(options, pathText(profile))
    if (weights.length > 0) return createSessionWith(weights, model, options)
    return made((place) => api.CreateSessionFromArray(environment, model, model.length, options, place))
  } finally {
    api.ReleaseSessionOptions(options)
  }
}
