// What programs run on: sessions of programs, and buffers that stay where the programs run. Back ends are folders beside this file.

import type { Device, DType, TensorData, TypedArray } from '../core/types.ts'
import type { FilePart, LoadedInput, Program } from '../graph/program.ts'
import type { Node } from '../graph/tensor.ts'

/** Part of a buffer that stays in the executor. `offset` counts elements. */
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
  uses: readonly {
    name: string
    /** Default: that of the weight. */
    dtype?: DType
    shape: readonly number[]
  }[]
}

export interface RunOptions {
  /** Rejects with the signal's reason at once; the run itself finishes in the worker and its result is dropped. */
  signal?: AbortSignal
}

export interface Session {
  /** Runs with `feeds`; an output fetched as null is returned, one fetched as a resident is written there. */
  run(
    feeds: Record<string, Source>,
    fetches: Record<string, Resident | null>,
    options?: RunOptions,
  ): Promise<Record<string, TensorData>>
  /**
   * Inputs and outputs that the runs that follow have beside their own, so that what stays the same is not sent with each.
   * They take the place of what was bound before, and are bound no longer when one of the buffers is allocated anew or freed.
   */
  bind(feeds: Record<string, Resident>, fetches: Record<string, Resident>): Promise<void>
  /** Writes the profile; only for sessions loaded with `profile`. */
  endProfiling(): Promise<void>
  release(): Promise<void>
}

export interface LoadOptions {
  /** Inference models gain from rewriting of the lowered graph; training programs are lowered to their final form. Default true. */
  optimize?: boolean
  /** Inputs that have the same values in every run: they become part of the session. */
  constants?: {
    names: ReadonlySet<string>
    /**
     * Their values, of those that the program uses and in the shapes in which it does. Taken one after the other, so that
     * they need not exist at the same time; each moves to the executor and is no longer usable here.
     */
    values(used: ReadonlyMap<string, readonly LoadedInput[]>): Iterable<Weight> | AsyncIterable<Weight>
  }
  /** Inputs whose values stay in files of one folder, which are mapped into memory. */
  files?: { folder: string; tensors: ReadonlyMap<string, FilePart> }
  /** Puts other nodes in place of some; see `ExportOptions`. */
  rewrite?(nodes: readonly Node[]): readonly Node[]
  /** File prefix for a profile. */
  profile?: string
}

export interface Executor {
  readonly threads: number
  readonly device: Device
  load(program: Program, options?: LoadOptions): Promise<Session>
  /** A zeroed buffer in the worker, or one made of `data`, which is moved there and no longer usable here. */
  allocate(name: string, dtype: DType, content: number | TypedArray): Promise<void>
  /**
   * Gives each of the buffers `size` elements, zeros but for what the moves copy from the old buffer, which need not exist
   * where there are none. One buffer after the other, so that no two are there twice.
   */
  resize(names: readonly string[], dtype: DType, size: number, moves: readonly Move[]): Promise<void>
  free(...names: string[]): Promise<void>
  /** A copy of (part of) a resident buffer; offset and length count elements. */
  read(name: string, offset?: number, length?: number): Promise<TypedArray>
  /** Overwrites part of a resident buffer with `data`, which is moved to the worker and no longer usable here. */
  write(name: string, data: TypedArray, offset?: number): Promise<void>
  /** Makes the same moves, one after the other, in each of the resident buffers, or from each to its counterpart in `to`. */
  move(names: readonly string[], moves: readonly Move[], to?: readonly string[]): Promise<void>
  /** Resident set size of the process in bytes. */
  memory(): Promise<number>
  dispose(): Promise<void>
}
