// Markdown tables and numbers as docs/benchmarks.md shows them.

/** A table whose first row is its head. Columns of numbers are not padded: the page is made, not edited. */
export function table(rows: readonly (readonly string[])[]): string {
  const [head, ...body] = rows
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** Three significant digits, whole above 1000 with separators. */
export function figure(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US')
  return Number(value.toPrecision(3)).toString()
}

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`

export const times = (ratio: number): string => `${ratio.toFixed(2)} ×`

/** A change as a share: +2.2 %. */
export const change = (ratio: number): string => {
  const text = (100 * (ratio - 1)).toFixed(1)
  return `${ratio >= 1 ? '+' : ''}${text === '-0.0' ? '0.0' : text} %`
}
