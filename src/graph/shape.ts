// Dimensions and shapes: a dimension is a number or a name (a size known only at run time). Knows no operations.

/** A static size, or the name of a symbolic one. Products of names are written `A*B`. */
export type Dim = number | string
export type Shape = readonly Dim[]

export const shapeText = (shape: Shape): string => `[${shape.join(', ')}]`

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((dim, i) => dim === b[i])

/** The product of dimensions, in a canonical form so that equal products compare equal. */
export function product(dims: Shape): Dim {
  let size = 1
  const names: string[] = []
  for (const dim of dims) {
    if (typeof dim === 'number') size *= dim
    else
      for (const factor of dim.split('*')) {
        if (/^\d+$/.test(factor)) size *= Number(factor)
        else names.push(factor)
      }
  }
  if (names.length === 0) return size
  names.sort()
  return size === 1 ? names.join('*') : [size, ...names].join('*')
}

/** Element count of a static shape. Throws where a dimension is symbolic. */
export function staticSize(shape: Shape): number {
  const size = product(shape)
  if (typeof size !== 'number') throw new Error(`a static shape is needed, got ${shapeText(shape)}`)
  return size
}

/** The sum of two dimensions along which tensors are concatenated. */
export function sum(a: Dim, b: Dim): Dim {
  return typeof a === 'number' && typeof b === 'number' ? a + b : `(${a}+${b})`
}

/** NumPy broadcasting. Returns undefined where the shapes do not fit. */
export function broadcast(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length)
  const out: Dim[] = []
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1
    const y = b[b.length - rank + i] ?? 1
    if (x === y || y === 1) out.push(x)
    else if (x === 1) out.push(y)
    else return undefined
  }
  return out
}
