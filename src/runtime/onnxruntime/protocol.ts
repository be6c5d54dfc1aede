// Messages between the executor and its worker.
import type { Device, DType, TensorData, TypedArray } from '../../core/types.ts'
import type { Move, Resident, Source, Weight } from '../executor.ts'

/** What the worker is started with. */
export interface WorkerData {
  threads: number
  device: Device
}

interface LoadOptions {
  optimize: boolean
  externalFolder?: string
  profile?: string
  /** Products of 8-bit numbers by instructions that never clip. */
  unclipped: boolean
}

export type Request =
  /** For a session that is loaded after its weights. */
  | { kind: 'weight'; session: string; weight: Weight }
  | { kind: 'load'; session: string; model: Uint8Array; options: LoadOptions }
  | { kind: 'unload'; session: string }
  /** Releases everything, before the worker ends. */
  | { kind: 'close' }
  | { kind: 'endProfiling'; session: string }
  | { kind: 'allocate'; name: string; dtype: DType; size: number; data?: TypedArray }
  /** Zeroed buffers in place of those of these names, if there are any, with the moves made from the old to the new. */
  | { kind: 'resize'; names: readonly string[]; dtype: DType; size: number; moves: readonly Move[] }
  | { kind: 'free'; names: readonly string[] }
  | { kind: 'read'; name: string; offset?: number; length?: number }
  | { kind: 'write'; name: string; data: TypedArray; offset?: number }
  | { kind: 'memory' }
  | {
      kind: 'run'
      session: string
      feeds: Record<string, Source>
      /** null: return the value; a resident: write it there. */
      fetches: Record<string, Resident | null>
    }
  /** Inputs and outputs of the runs that follow, until one of the buffers is allocated anew or freed. */
  | { kind: 'bind'; session: string; feeds: Record<string, Resident>; fetches: Record<string, Resident> }
  /** The same moves, one after the other, in each of the buffers, or from each to its counterpart in `to`. */
  | { kind: 'move'; names: readonly string[]; moves: readonly Move[]; to: readonly string[] }

/** What a request gives back. */
export type Answer = undefined | number | TypedArray | Record<string, TensorData>
