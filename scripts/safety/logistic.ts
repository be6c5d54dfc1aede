// Logistic regression with an L2 penalty over sparse rows, by coordinate descent in the dual (Yu, Huang and Lin, Machine
// Learning 85, 2011). Every step solves its coordinate exactly, so there is no rate to choose.
import { random } from '../../src/core/random.ts'

/** Features of a text: where they are and how much. */
export interface Row {
  index: Int32Array
  value: Float32Array
}

export interface Logistic {
  weights: Float64Array
  bias: number
}

interface Options {
  /** Weight of the losses against half the squared length of the weights. */
  cost: number
  width: number
  passes: number
  seed: number
}

/** Fits rows to labels of true and false. The bias is penalised like a weight. */
export function fitLogistic(
  rows: readonly Row[],
  labels: readonly boolean[],
  { cost, width, passes, seed }: Options,
): Logistic {
  const weights = new Float64Array(width)
  let bias = 0
  const start = Math.min(1e-3 * cost, 1e-8)
  const alpha = new Float64Array(rows.length).fill(start)
  const squares = rows.map(({ value }) => value.reduce((sum, x) => sum + x * x, 1))
  const move = ({ index, value }: Row, by: number) => {
    for (let i = 0; i < index.length; i++) weights[index[i]!]! += by * value[i]!
    bias += by
  }
  rows.forEach((row, i) => {
    move(row, labels[i] ? start : -start)
  })
  const order = [...rows.keys()]
  const draw = random(seed)
  for (let pass = 0; pass < passes; pass++) {
    let largest = 0
    for (const i of draw.shuffle(order)) {
      const { index, value } = rows[i]!
      let margin = bias
      for (let k = 0; k < index.length; k++) margin += weights[index[k]!]! * value[k]!
      const sign = labels[i] ? 1 : -1
      const old = alpha[i]!
      const next = coordinate(sign * margin, squares[i]!, old, cost)
      alpha[i] = next
      move(rows[i]!, sign * (next - old))
      largest = Math.max(largest, Math.abs(next - old) / cost)
    }
    if (largest < 1e-3) break
  }
  return { weights, bias }
}

/** The z in (0, cost) at which margin + (z - old) * square + log(z / (cost - z)), which grows with z, is zero. */
function coordinate(margin: number, square: number, old: number, cost: number): number {
  let [low, high] = [0, cost]
  let z = old
  for (let step = 0; step < 30; step++) {
    const slope = margin + (z - old) * square + Math.log(z / (cost - z))
    if (slope > 0) high = z
    else low = z
    const newton = z - slope / (square + cost / (z * (cost - z)))
    const next = newton > low && newton < high ? newton : (low + high) / 2
    if (Math.abs(next - z) < 1e-9 * cost) break
    z = next
  }
  return z
}

export function scoreOf({ index, value }: Row, { weights, bias }: Logistic): number {
  let sum = bias
  for (let i = 0; i < index.length; i++) sum += weights[index[i]!]! * value[i]!
  return sum
}

/** Platt's calibration: slope and intercept that turn scores into log-odds. */
export function calibrate(scores: readonly number[], labels: readonly boolean[]): { slope: number; intercept: number } {
  // Targets as Platt has them, so that separable scores stay finite.
  const positives = labels.filter(Boolean).length
  const [yes, no] = [(positives + 1) / (positives + 2), 1 / (labels.length - positives + 2)]
  const spread = Math.sqrt(scores.reduce((sum, x) => sum + x * x, 0) / scores.length) || 1
  let [slope, intercept] = [1 / spread, 0]
  for (let step = 0; step < 100; step++) {
    let [g0, g1, h00, h01, h11] = [0, 0, 1e-9, 0, 1e-9]
    scores.forEach((x, i) => {
      const p = 1 / (1 + Math.exp(-(slope * x + intercept)))
      const error = p - (labels[i] ? yes : no)
      const curve = p * (1 - p)
      g0 += error * x
      g1 += error
      h00 += curve * x * x
      h01 += curve * x
      h11 += curve
    })
    const determinant = h00 * h11 - h01 * h01
    const [d0, d1] = [(h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant]
    slope -= d0
    intercept -= d1
    if (Math.abs(d0) + Math.abs(d1) < 1e-9) break
  }
  return { slope, intercept }
}
