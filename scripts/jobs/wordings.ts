// How records of each kind are put into words, and their JSON schemas. Knows nothing about data sets or files.
import type { Random } from '../../src/core/random.ts'
import type { RecordKind } from './records.ts'

export type Value = string | number | boolean

export interface Field {
  /** The schema of a value that is not null. */
  schema: { type: string; enum?: string[]; format?: string }
  /** Names of the field in notes and where it is said to be unknown; the first suits "The ... is not known". */
  labels: string[]
  /** Predicates with `{}` for the value, of which each can follow a subject in the singular. */
  says: string[]
  /** Predicates for values that are better said in other words; by the value as a text. */
  special?: Record<string, string[]>
  /** Ways to write the value; default: numbers with or without a comma before thousands, the rest as it stands. */
  write?: ((value: never) => string)[]
  /** What stands behind the value in notes, such as a unit. */
  unit?: string
}

export interface Wording {
  /** Subjects of sentences; the last is for all but the first. */
  subjects: [string, ...string[]]
  /** By key, in the order of the JSON. */
  fields: Record<string, Field>
  /** Sentences that say nothing that is asked for; `{}` is a number from 2 to 60. */
  asides: string[]
}

const string = { type: 'string' }
const number = { type: 'number' }
const integer = { type: 'integer' }
const oneOf = (...values: string[]) => ({ type: 'string', enum: values })

const months = 'January February March April May June July August September October November December'.split(' ')
const dateParts = (iso: string) => {
  const [year, month, day] = iso.split('-').map(Number) as [number, number, number]
  return { year, month: months[month - 1] as string, day }
}

/** Dates, which are ISO 8601 in the JSON. */
const date = {
  schema: { type: 'string', format: 'date' },
  write: [
    (iso: string) => iso,
    (iso: string) => `${dateParts(iso).month} ${dateParts(iso).day}, ${dateParts(iso).year}`,
    (iso: string) => `${dateParts(iso).day} ${dateParts(iso).month} ${dateParts(iso).year}`,
    (iso: string) => `${dateParts(iso).month.slice(0, 3)} ${dateParts(iso).day}, ${dateParts(iso).year}`,
  ],
}

/** Degrees, with a sign or with a direction. */
const degrees = (positive: string, negative: string) => [
  (value: number) => String(value),
  (value: number) => `${Math.abs(value)} degrees ${value < 0 ? negative : positive}`,
]

export const wordings: Record<RecordKind, Wording> = {
  penguin: {
    subjects: ['The penguin', 'This penguin', 'The bird', 'It'],
    fields: {
      species: {
        schema: oneOf('Adelie', 'Chinstrap', 'Gentoo'),
        labels: ['species', 'kind'],
        says: ['belongs to the species {}', 'is of the {} species', 'was identified as {}'],
      },
      island: {
        schema: oneOf('Biscoe', 'Dream', 'Torgersen'),
        labels: ['island', 'site'],
        says: ['lives on {} Island', 'was caught on {}', 'comes from the island {}'],
      },
      beak_length_mm: {
        schema: number,
        labels: ['beak length', 'length of beak'],
        says: ['has a beak {} mm long', 'has a beak length of {} mm', 'shows a beak with a length of {} mm'],
        unit: ' mm',
      },
      beak_depth_mm: {
        schema: number,
        labels: ['beak depth', 'depth of beak'],
        says: ['has a beak {} mm deep', 'has a beak depth of {} mm', 'measures {} mm in depth at the beak'],
        unit: ' mm',
      },
      flipper_length_mm: {
        schema: integer,
        labels: ['flipper length', 'flipper'],
        says: ['has flippers of {} mm', 'measures {} mm at the flipper', 'has a flipper length of {} mm'],
        unit: ' mm',
      },
      body_mass_g: {
        schema: integer,
        labels: ['body mass', 'weight'],
        says: ['weighs {} g', 'has a body mass of {} grams', 'came to {} g on the scales'],
        unit: ' g',
      },
      sex: {
        schema: oneOf('male', 'female'),
        labels: ['sex'],
        says: ['is {}', 'was sexed as {}', 'turned out to be {}'],
      },
    },
    asides: [
      'The team walked {} km to the colony.',
      'Photo {} shows the nest from above.',
      'The wind was strong during the visit.',
      'A ring was put on its left leg.',
      'The boat left {} minutes late.',
      'Nearby, {} chicks were counted.',
    ],
  },
  birdstrike: {
    subjects: ['The aircraft', 'The plane', 'It'],
    fields: {
      date: {
        ...date,
        labels: ['date', 'day'],
        says: ['was struck on {}', 'had the strike on {}', 'was hit on {}'],
      },
      airport: {
        schema: string,
        labels: ['airport', 'field'],
        says: ['was at {}', 'was using the airport {}', 'was near {} at the time'],
      },
      operator: {
        schema: string,
        labels: ['operator', 'operated by'],
        says: ['was operated by {}', 'was flown by {}', 'has {} as its operator'],
      },
      aircraft: {
        schema: string,
        labels: ['aircraft model', 'model', 'type'],
        says: ['is a model {}', 'is listed as type {}', 'is of model {}'],
      },
      phase: {
        schema: oneOf('approach', 'climb', 'descent', 'landing roll', 'parked', 'take-off run', 'taxi'),
        labels: ['phase of flight', 'phase'],
        says: ['was in the phase {}', 'was hit in its {} phase'],
        special: {
          approach: ['was on approach', 'was hit during approach'],
          climb: ['was climbing', 'was hit during the climb'],
          descent: ['was descending', 'was hit during the descent'],
          'take-off run': ['was on its take-off run'],
          'landing roll': ['was in its landing roll'],
        },
      },
      wildlife: {
        schema: string,
        labels: ['wildlife', 'animal'],
        says: ['hit wildlife reported as "{}"', 'struck an animal given as {}', 'met wildlife of the kind {}'],
      },
      damage: {
        schema: oneOf('none', 'minor', 'medium', 'substantial'),
        labels: ['damage', 'harm to the aircraft'],
        says: ['took {} damage', 'suffered {} damage', 'was left with {} damage'],
        special: { none: ['came away without damage', 'took no damage', 'was not damaged'] },
      },
      speed_knots: {
        schema: integer,
        labels: ['speed', 'indicated airspeed'],
        says: ['was flying at {} knots', 'was doing {} knots', 'had a speed of {} knots'],
        unit: ' knots',
      },
    },
    asides: [
      'The crew filed report {} the same evening.',
      'About {} passengers were on board.',
      'The runway was closed for {} minutes.',
      'A mechanic looked at the engines afterwards.',
      'The next departure waited {} minutes.',
      'The tower was told by radio.',
    ],
  },
  airport: {
    subjects: ['The airport', 'This airport', 'The airfield', 'It'],
    fields: {
      code: {
        schema: string,
        labels: ['code', 'identifier'],
        says: ['has the code {}', 'is listed under {}', 'goes by the identifier {}'],
      },
      name: {
        schema: string,
        labels: ['name', 'called'],
        says: ['is called {}', 'bears the name {}', 'is named {}'],
      },
      city: {
        schema: string,
        labels: ['city', 'town'],
        says: ['serves {}', 'lies near the city of {}', 'belongs to the town of {}'],
      },
      state: {
        schema: string,
        labels: ['state'],
        says: ['is in the state {}', 'lies in {}', 'is found in {}'],
      },
      latitude: {
        schema: number,
        labels: ['latitude', 'lat'],
        says: ['lies at latitude {}', 'has a latitude of {}'],
        write: degrees('north', 'south'),
      },
      longitude: {
        schema: number,
        labels: ['longitude', 'lon'],
        says: ['lies at longitude {}', 'has a longitude of {}'],
        write: degrees('east', 'west'),
      },
    },
    asides: [
      'Parking costs {} dollars a day.',
      'The cafe has {} seats.',
      'The runway was repaved {} years ago.',
      'A flying club meets here on Sundays.',
      'Fuel is sold by the hour of daylight.',
      'The hangar holds {} small planes.',
    ],
  },
  earthquake: {
    subjects: ['The event', 'This event', 'It'],
    fields: {
      type: {
        schema: oneOf('earthquake', 'explosion', 'quarry blast'),
        labels: ['type', 'kind of event'],
        says: ['was an event of type {}', 'was classed as {}', 'is listed as {}'],
      },
      magnitude: {
        schema: number,
        labels: ['magnitude', 'mag'],
        says: ['had a magnitude of {}', 'reached magnitude {}', 'measured {} in magnitude'],
      },
      place: {
        schema: string,
        labels: ['place', 'location'],
        says: ['was located {}', 'took place {}', 'was placed {}'],
      },
      date: {
        ...date,
        labels: ['date', 'day'],
        says: ['happened on {}', 'was recorded on {}', 'is dated {}'],
      },
      depth_km: {
        schema: number,
        labels: ['depth', 'focal depth'],
        says: ['had a depth of {} km', 'was {} km deep', 'lay {} kilometers below the surface'],
        unit: ' km',
      },
      stations: {
        schema: integer,
        labels: ['number of stations', 'stations'],
        says: ['was registered by {} stations', 'was seen at {} stations', 'rests on readings of {} stations'],
      },
      reviewed: {
        schema: { type: 'boolean' },
        labels: ['review', 'reviewed'],
        says: [],
        special: {
          true: ['was reviewed by a seismologist', 'has been reviewed'],
          false: ['has not been reviewed yet', 'was found automatically and is unreviewed'],
        },
        write: [(value: boolean) => (value ? 'yes' : 'no')],
      },
    },
    asides: [
      'A school was closed for {} hours.',
      'Some people in the area woke up.',
      'The bulletin went out {} minutes later.',
      'About {} calls came in.',
      'No tsunami was expected.',
      'Shelves shook in a shop downtown.',
    ],
  },
  weather: {
    subjects: ['The day', 'This day', 'It'],
    fields: {
      city: {
        schema: oneOf('Seattle', 'New York'),
        labels: ['city', 'place'],
        says: ['was recorded in {}', 'belongs to the records of {}', 'was observed in {}'],
      },
      date: {
        ...date,
        labels: ['date'],
        says: ['was {}', 'is dated {}', 'fell on {}'],
      },
      condition: {
        schema: oneOf('drizzle', 'fog', 'rain', 'snow', 'sun'),
        labels: ['condition', 'weather', 'sky'],
        says: ['was marked by {}', 'brought {}', 'is noted as "{}"'],
      },
      high_c: {
        schema: number,
        labels: ['high', 'highest temperature'],
        says: ['had a high of {} C', 'reached {} degrees Celsius at most', 'warmed up to {} C'],
        unit: ' C',
      },
      low_c: {
        schema: number,
        labels: ['low', 'lowest temperature'],
        says: ['had a low of {} C', 'cooled down to {} degrees Celsius', 'fell to {} C at night'],
        unit: ' C',
      },
      precipitation_mm: {
        schema: number,
        labels: ['precipitation'],
        says: ['had {} mm of precipitation', 'got {} mm of precipitation', 'left {} mm in the gauge'],
        special: { 0: ['had no precipitation', 'left nothing in the gauge', 'had 0 mm of precipitation'] },
        unit: ' mm',
      },
      wind_m_s: {
        schema: number,
        labels: ['wind', 'wind speed'],
        says: ['had wind of {} m/s', 'saw an average wind speed of {} m/s', 'was windy at {} m/s'],
        unit: ' m/s',
      },
    },
    asides: [
      'The ferry ran {} minutes late.',
      'About {} people came to the market.',
      'The park closed early.',
      'A street fair took up {} blocks.',
      'The observer changed a battery.',
      'Traffic was light after noon.',
    ],
  },
}

/** The JSON schema of a kind's records: every key is there, null where nothing is said. */
export function schemaOf(kind: RecordKind): object {
  const { fields } = wordings[kind]
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: kind,
    type: 'object',
    properties: Object.fromEntries(
      Object.entries(fields).map(([key, { schema }]) => [
        key,
        { ...schema, type: [schema.type, 'null'], ...(schema.enum && { enum: [...schema.enum, null] }) },
      ]),
    ),
    required: Object.keys(fields),
    additionalProperties: false,
  }
}

/** Describes `said` (by key, in the order in which it is said); `unknown` are keys that are said not to be known. */
export function describe(
  kind: RecordKind,
  said: readonly (readonly [string, Value])[],
  unknown: readonly string[],
  draw: Random,
): string {
  const wording = wordings[kind]
  const sentences = draw.uniform() < 0.3 ? notes(wording, said, unknown, draw) : prose(wording, said, unknown, draw)
  for (let asides = draw.integer(3); asides > 0; asides--) {
    const aside = pick(wording.asides, draw).replace('{}', String(2 + draw.integer(59)))
    if (!sentences.includes(aside)) sentences.splice(draw.integer(sentences.length + 1), 0, aside)
  }
  return pick(['', '', '', 'Note: ', 'From the log: ', 'Report: '], draw) + sentences.join(' ')
}

/** Sentences of one to three predicates each. */
function prose(
  { subjects, fields }: Wording,
  said: readonly (readonly [string, Value])[],
  unknown: readonly string[],
  draw: Random,
): string[] {
  const sentences: string[] = []
  for (let start = 0; start < said.length; ) {
    const parts = said
      .slice(start, start + 1 + draw.integer(3))
      .map(([key, value]) => predicate(fields[key]!, value, draw))
    start += parts.length
    const subject = sentences.length === 0 ? pick(subjects.slice(0, -1), draw) : pick(subjects.slice(-2), draw)
    sentences.push(`${subject} ${listed(parts)}.`)
  }
  for (const key of unknown) {
    const way = pick(['The {} is not known.', 'The {} was not recorded.', 'No {} was given.'], draw)
    sentences.splice(draw.integer(sentences.length + 1), 0, way.replace('{}', fields[key]!.labels[0]!))
  }
  return sentences
}

/** One line of labels and values. */
function notes(
  { fields }: Wording,
  said: readonly (readonly [string, Value])[],
  unknown: readonly string[],
  draw: Random,
): string[] {
  const [sign, between] = [pick([': ', ' = ', ' - '], draw), pick(['; ', ', ', ' | '], draw)]
  const entries = said.map(([key, value]) => {
    const field = fields[key]!
    return `${pick(field.labels, draw)}${sign}${written(field, value, draw)}${field.unit ?? ''}`
  })
  for (const key of unknown)
    entries.splice(
      draw.integer(entries.length + 1),
      0,
      `${pick(fields[key]!.labels, draw)}${sign}${pick(['not recorded', '?', 'n/a'], draw)}`,
    )
  return [`${entries.join(between)}.`]
}

function predicate(field: Field, value: Value, draw: Random): string {
  const special = field.special?.[String(value)]
  if (special !== undefined) return pick(special, draw)
  return pick(field.says, draw).replace('{}', () => written(field, value, draw))
}

function written(field: Field, value: Value, draw: Random): string {
  if (field.write) return pick(field.write, draw)(value as never)
  if (typeof value !== 'number') return String(value)
  return draw.uniform() < 0.5 ? String(value) : value.toLocaleString('en-US', { maximumFractionDigits: 20 })
}

const listed = (parts: readonly string[]): string =>
  parts.length === 1 ? parts[0]! : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`

const pick = <T>(items: readonly T[], draw: Random): T => items[draw.integer(items.length)] as T
