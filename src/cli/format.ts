// Numbers and bars as people read them in a terminal.

/** 950 -> "950", 12_345 -> "12.3k", 4_000_000 -> "4.00M". */
export function count(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (Math.abs(value) < 1000) return Number.isInteger(value) ? String(value) : value.toPrecision(3)
  const [factor, unit] =
    Math.abs(value) < 999_500 ? [1e3, 'k'] : Math.abs(value) < 999_500_000 ? [1e6, 'M'] : [1e9, 'G']
  return `${(value / factor).toPrecision(3)}${unit}`
}

/** Bytes in binary units: 98_566_144 -> "94.0 MiB". */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let scaled = value
  while (scaled >= 1023.5 && unit < units.length - 1) {
    scaled /= 1024
    unit++
  }
  return unit === 0 ? `${value} B` : `${scaled.toFixed(scaled < 100 ? 1 : 0)} ${units[unit]}`
}

/** A bar with a text behind it, in one line of at most `width` columns: a long text loses its middle, then the bar goes. */
export function progressLine(share: number, text: string, width: number, color: (bar: string) => string): string {
  const room = width - 1 - text.length - 1
  if (room >= 8) return `${color(bar(share, Math.min(32, room)))} ${text}`
  const most = Math.max(1, width - 1)
  if (text.length <= most) return text
  const half = Math.floor((most - 1) / 2)
  return `${text.slice(0, most - 1 - half)}…${half > 0 ? text.slice(-half) : ''}`
}

/** 7 -> "7 s", 151 -> "2:31", 4000 -> "1:06:40". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '-'
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const two = (value: number) => String(value).padStart(2, '0')
  const minutes = Math.floor(whole / 60)
  return minutes < 60
    ? `${minutes}:${two(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`
}

/** A value with a fixed number of decimals, "-" where there is none. */
export function decimals(value: number | undefined, digits: number): string {
  return value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits)
}

export function percent(share: number | undefined, digits = 1): string {
  return share === undefined || !Number.isFinite(share) ? '-' : `${(100 * share).toFixed(digits)} %`
}

/** A bar of `width` cells, filled to `share` in eighths of a cell. */
export function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8)
  const full = Math.floor(eighths / 8)
  const part = eighths % 8
  const partial = part === 0 ? '' : ' ▏▎▍▌▋▊▉'[part]!
  return ('█'.repeat(full) + partial).padEnd(width, '░')
}

/** Rows as columns separated by two spaces; columns whose every cell but the first looks like a number align right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  const numeric = widths.map((_, i) => rows.slice(1).every((row) => /^$|^-$|^[-+]?\d/.test(row[i] ?? '')))
  return rows
    .map((row) =>
      row
        .map((cell, i) => (numeric[i] && i > 0 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
