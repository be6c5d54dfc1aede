// What attributes of operations are made of: plain data, checked where a program is read.
import * as z from 'zod'
import type { DType } from '../core/types.ts'

const MAX_RANK = 16

/** For operations without attributes. */
export const none = z.null()

/** A number of things, at least one. */
export const count = z.int().min(1)

/** An index, or a number of things that may be none. */
export const index = z.int().min(0)

export const dim = z.union([index, z.string().min(1).max(1000)])
export const shape = z.array(dim).max(MAX_RANK).readonly()
export const axes = z.array(index).max(MAX_RANK).readonly()

export const dtype = z.enum([
  'float32',
  'float16',
  'int64',
  'int32',
  'int8',
  'uint8',
  'bool',
] as const satisfies readonly DType[])
