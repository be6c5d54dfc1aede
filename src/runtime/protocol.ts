// Messages between the executor and its worker.
import type { DType, TensorData, TypedArray } from '../types.ts'

/** Part of a buffer that stays in the worker. `offset` counts elements. */
export interface Resident {
  resident: string
  offset?: number
  shape: readonly number[]
}

export type Source = TensorData | Resident

/** Copies `length` elements of a buffer to another place in it. */
export interface Move {
  from: number
  to: number
  length: number
}

/** Values of inputs of a model that are the same in every run: one tensor, under each of the names and shapes that use it. */
export interface Weight {
  dtype: DType
  data: TypedArray
  uses: readonly { name: string; shape: readonly number[] }[]
}

export interface LoadOptions {
  optimize: boolean
  /** Session configuration entries by ONNX Runtime's names. */
  config: Record<string, string>
  profile?: string
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
  /** The same moves, one after the other, in each of the buffers. */
  | { kind: 'move'; names: readonly string[]; moves: readonly Move[] }
