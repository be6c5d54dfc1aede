// Formats of strings in JSON schemas, each as a regular expression for some of the texts that are valid in it.

const octet = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const label = '[a-z0-9]([a-z0-9\\-]{0,30}[a-z0-9])?'
const hostname = `${label}(\\.${label}){0,6}`
// February has 28 days here: every date exists.
const date =
  '[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))'
const clock = '([01][0-9]|2[0-3]):[0-5][0-9]'
const time = `${clock}:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+\\-]${clock})`
const n = '[0-9]{1,4}'
const days = `(${n}Y(${n}M(${n}D)?)?|${n}M(${n}D)?|${n}D)`
const hours = `T(${n}H(${n}M(${n}S)?)?|${n}M(${n}S)?|${n}S)`

/** Formats that every string has. */
export const plainFormats: ReadonlySet<string> = new Set(['password', 'path', 'file-path', 'directory-path', 'binary'])

export const formats: Readonly<Record<string, string>> = {
  date,
  time,
  'date-time': `${date}T${time}`,
  duration: `P(${n}W|${days}(${hours})?|${hours})`,
  email: `[a-zA-Z0-9_]+([.+\\-][a-zA-Z0-9_]+){0,4}@${label}(\\.${label}){1,4}`,
  hostname,
  ipv4: `${octet}(\\.${octet}){3}`,
  ipv6: '[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}',
  uuid: '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}',
  uri: `https?://${hostname}(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9._~\\-]+)*/?(\\?[a-zA-Z0-9._~=&\\-]+)?(#[a-zA-Z0-9._~\\-]+)?`,
}
