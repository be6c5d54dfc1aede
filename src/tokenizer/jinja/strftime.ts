// Python's `strftime` in the C locale, for the dates that templates write.

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June', 'July'],
  ...['August', 'September', 'October', 'November', 'December'],
]

const two = (value: number) => String(value).padStart(2, '0')

const dayOfYear = (date: Date) =>
  Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 86_400_000,
  )

const fields: Readonly<Record<string, (date: Date) => string>> = {
  a: (d) => DAYS[d.getDay()]!.slice(0, 3),
  A: (d) => DAYS[d.getDay()]!,
  b: (d) => MONTHS[d.getMonth()]!.slice(0, 3),
  B: (d) => MONTHS[d.getMonth()]!,
  c: (d) => strftime('%a %b %e %H:%M:%S %Y', d),
  d: (d) => two(d.getDate()),
  D: (d) => strftime('%m/%d/%y', d),
  e: (d) => String(d.getDate()).padStart(2),
  f: (d) => `${String(d.getMilliseconds()).padStart(3, '0')}000`,
  F: (d) => strftime('%Y-%m-%d', d),
  h: (d) => MONTHS[d.getMonth()]!.slice(0, 3),
  H: (d) => two(d.getHours()),
  I: (d) => two(d.getHours() % 12 || 12),
  j: (d) => String(dayOfYear(d)).padStart(3, '0'),
  m: (d) => two(d.getMonth() + 1),
  M: (d) => two(d.getMinutes()),
  n: () => '\n',
  p: (d) => (d.getHours() < 12 ? 'AM' : 'PM'),
  S: (d) => two(d.getSeconds()),
  t: () => '\t',
  T: (d) => strftime('%H:%M:%S', d),
  u: (d) => String(d.getDay() || 7),
  w: (d) => String(d.getDay()),
  x: (d) => strftime('%m/%d/%y', d),
  X: (d) => strftime('%H:%M:%S', d),
  y: (d) => two(d.getFullYear() % 100),
  Y: (d) => String(d.getFullYear()),
  z: () => '',
  Z: () => '',
  '%': () => '%',
}

/** Local time, as `datetime.now()` has it. `%-d` and the like leave leading zeros out; unknown directives stay. */
export function strftime(format: string, date: Date): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (whole, bare: string, directive: string) => {
    const text = fields[directive]?.(date)
    if (text === undefined) return whole
    return bare === '' ? text : text.replace(/^[0 ]+(?=.)/, '')
  })
}
