// Python's two ways of formatting into a text: `'%s' % value` and `'{}'.format(value)`.
import { characters, pad, TemplateError } from './text.ts'
import { Dict, floatText, type Given, isNumeric, numeric, repr, Tuple, textOf, typeName, type Value } from './values.ts'

interface Layout {
  type: string
  width: number
  precision: number | undefined
  fill: string
  align: '<' | '>' | '=' | '^' | undefined
  sign: string
  grouping: string
}

const toFloat = (value: Value): number => {
  if (!isNumeric(value)) throw new TemplateError(`a number is needed, not ${typeName(value)}`)
  return Number(numeric(value))
}

/** The digits of a number, without its sign. */
function digits(value: Value, { type, precision, grouping }: Layout): string {
  if ('dixXob'.includes(type)) {
    if (!isNumeric(value)) throw new TemplateError(`an integer is needed, not ${typeName(value)}`)
    const number = numeric(value)
    const whole = typeof number === 'bigint' ? number : BigInt(Math.trunc(number))
    const radix = { x: 16, X: 16, o: 8, b: 2 }[type] ?? 10
    const text = (whole < 0n ? -whole : whole).toString(radix)
    return group(type === 'X' ? text.toUpperCase() : text, grouping)
  }
  const number = Math.abs(toFloat(value))
  const exponent = (text: string) => text.replace(/e([+-])(\d)$/, 'e$10$2')
  if (type === 'e') return exponent(number.toExponential(precision ?? 6))
  if (type === '%') return `${(number * 100).toFixed(precision ?? 6)}%`
  if (type === 'g') {
    const text = number.toPrecision(precision || (precision === 0 ? 1 : 6))
    return exponent(text.includes('.') ? text.replace(/\.?0+(?=e|$)/, '') : text)
  }
  return group(number.toFixed(precision ?? 6), grouping)
}

const group = (text: string, mark: string) =>
  mark === '' ? text : text.replace(/^\d+/, (whole) => whole.replace(/\B(?=(?:\d{3})+$)/g, mark))

function layOut(value: Value, layout: Layout): string {
  const { type, width, precision, fill, align } = layout
  if (type === 's' || type === 'r') {
    const text = type === 's' ? textOf(value) : repr(value)
    const cut = precision === undefined ? text : characters(text).slice(0, precision).join('')
    return pad(cut, width, fill, align === '>' || align === '=' ? 'left' : align === '^' ? 'both' : 'right')
  }
  const text = digits(value, layout)
  const negative = isNumeric(value) && (numeric(value) < 0 || Object.is(value, -0))
  const sign = negative ? '-' : layout.sign === '-' ? '' : layout.sign
  if (align === '=') return sign + pad(text, width - sign.length, fill, 'left')
  return pad(sign + text, width, fill, align === '<' ? 'right' : align === '^' ? 'both' : 'left')
}

/** `text % values`. */
export function formatPercent(text: string, values: Value): string {
  const items = values instanceof Tuple ? [...values.items] : [values]
  let used = 0
  const take = (): Value => {
    if (used >= items.length) throw new TemplateError('not enough arguments for format string')
    return items[used++]!
  }
  const result = text.replace(
    /%(?:\(([^)]*)\))?([-+ #0]*)(\d+|\*)?(?:\.(\d+))?([\s\S])/g,
    (
      whole,
      key: string | undefined,
      flags: string,
      width: string | undefined,
      precision: string | undefined,
      type: string,
    ) => {
      if (type === '%') return '%'
      if (!'sridxXoeEfFgG'.includes(type)) throw new TemplateError(`unsupported format ${whole}`)
      const size = width === '*' ? Number(take()) : Number(width ?? 0)
      const named = key === undefined ? undefined : values instanceof Dict ? values.get(key) : undefined
      if (key !== undefined && named === undefined) throw new TemplateError(`format needs the key ${key}`)
      const zeros = flags.includes('0') && !flags.includes('-') && !'sr'.includes(type)
      return layOut(named ?? take(), {
        type: 'EFG'.includes(type) ? type.toLowerCase() : type === 'i' ? 'd' : type,
        width: size,
        precision: precision === undefined ? undefined : Number(precision),
        fill: zeros ? '0' : ' ',
        align: flags.includes('-') ? '<' : zeros ? '=' : '>',
        sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '-',
        grouping: '',
      })
    },
  )
  if (used < items.length && !(values instanceof Dict))
    throw new TemplateError('not all arguments converted during string formatting')
  return result
}

const SPECIFICATION = /^(?:([\s\S])?([<>=^]))?([-+ ])?#?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/u

/** `format(value, specification)`. */
function formatOne(value: Value, specification: string): string {
  if (specification === '') return textOf(value)
  const [match, fill, align, sign = '-', zero, width, grouping = '', precision, type] =
    SPECIFICATION.exec(specification) ?? []
  if (match === undefined) throw new TemplateError(`invalid format specifier ${specification}`)
  const isNumber = isNumeric(value)
  const layout: Layout = {
    type: type?.toLowerCase() === 'f' ? 'f' : (type ?? (typeof value === 'bigint' ? 'd' : 's')),
    width: Number(width ?? 0),
    precision: precision === undefined ? undefined : Number(precision),
    fill: fill ?? (zero ? '0' : ' '),
    align: (align as Layout['align']) ?? (zero ? '=' : isNumber ? '>' : '<'),
    sign,
    grouping,
  }
  if (type === undefined && typeof value === 'number')
    return layOut(precision === undefined ? floatText(value) : value, { ...layout, type: precision ? 'g' : 's' })
  return layOut(value, layout)
}

/** `text.format(...)`, with fields by place or by name and their keys. */
export function formatFields(text: string, { positional, named }: Given): string {
  let automatic = 0
  const lookUp = (field: string): Value => {
    const [first = '', ...keys] = field.split(/[.[]/).map((part) => part.replace(/\]$/, ''))
    let value =
      first === '' ? positional[automatic++] : /^\d+$/.test(first) ? positional[Number(first)] : named.get(first)
    for (const key of keys) {
      if (value instanceof Dict) value = value.get(key)
      else value = Array.isArray(value) ? value[Number(key)] : undefined
    }
    if (value === undefined) throw new TemplateError(`format has no value for the field {${field}}`)
    return value
  }
  return text.replace(
    /\{\{|\}\}|\{([^{}!:]*)(?:!([rs]))?(?::([^{}]*))?\}|[{}]/g,
    (whole, field: string | undefined, conversion: string | undefined, specification = '') => {
      if (whole === '{{' || whole === '}}') return whole[0]!
      if (field === undefined) throw new TemplateError(`single '${whole}' in a format string`)
      const value = lookUp(field)
      return formatOne(conversion === 'r' ? repr(value) : conversion === 's' ? textOf(value) : value, specification)
    },
  )
}
