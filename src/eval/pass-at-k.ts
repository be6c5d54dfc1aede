// pass@k. Pure.
import { UserError } from '../core/types.ts'

/**
 * The probability that at least one of k answers is right, estimated without bias from `count` answers of which `right` are
 * right: 1 - C(count - right, k) / C(count, k) (Chen et al. 2021, equation 1). Throws UserError unless 1 <= k <= count.
 */
export function passAtK(count: number, right: number, k: number): number {
  if (!(k >= 1 && k <= count)) throw new UserError(`pass@${k} needs at least ${k} answers to a row; there are ${count}`)
  let none = 1
  for (let i = 0; i < k; i++) none *= Math.max(0, count - right - i) / (count - i)
  return 1 - none
}
