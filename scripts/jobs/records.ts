// Records of five data sets of the npm package vega-datasets, each a work of the US government or under CC0, as the package's
// datapackage.json says. Cars and movies are left out: the package knows of no licence for them. Knows nothing about prompts.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { csvParse } from 'd3-dsv'
import { UserError } from '../../src/core/types.ts'

export const recordKinds = ['penguin', 'birdstrike', 'airport', 'earthquake', 'weather'] as const
export type RecordKind = (typeof recordKinds)[number]

/** What a record says, by key in the order of its schema; null is what the data set does not know. */
export type DataRecord = Record<string, string | number | boolean | null>

/** All different records of a kind, in the order of the data set. */
export function recordsOf(kind: RecordKind): DataRecord[] {
  const records = readers[kind]()
  return [...new Map(records.map((record) => [JSON.stringify(record), record])).values()]
}

const readers: Record<RecordKind, () => DataRecord[]> = {
  // Palmer Station LTER, CC0.
  penguin: () =>
    json<Record<string, string | number | null>[]>('penguins.json').map((row) => ({
      species: text(row.Species),
      island: text(row.Island),
      beak_length_mm: number(row['Beak Length (mm)']),
      beak_depth_mm: number(row['Beak Depth (mm)']),
      flipper_length_mm: number(row['Flipper Length (mm)']),
      body_mass_g: number(row['Body Mass (g)']),
      sex: text(row.Sex)?.toLowerCase() ?? null,
    })),
  // Federal Aviation Administration.
  birdstrike: () =>
    csv('birdstrikes.csv').map((row) => ({
      date: text(row['Flight Date']),
      airport: title(row['Airport Name']),
      operator: title(row['Aircraft Airline Operator']?.replace('*', '')),
      aircraft: text(row['Aircraft Make Model']),
      phase: text(row['Phase of flight'])?.toLowerCase() ?? null,
      wildlife: text(row['Wildlife Species']),
      damage: damage(row['Effect Amount of damage']),
      speed_knots: number(row['Speed IAS in knots']),
    })),
  // Federal Aviation Administration.
  airport: () =>
    csv('airports.csv').map((row) => ({
      code: text(row.iata),
      name: text(row.name),
      city: row.city === 'NA' ? null : text(row.city),
      state: row.state === 'NA' ? null : text(row.state),
      latitude: rounded(row.latitude, 2),
      longitude: rounded(row.longitude, 2),
    })),
  // US Geological Survey.
  earthquake: () =>
    json<{ features: Earthquake[] }>('earthquakes.json').features.map(({ properties, geometry }) => ({
      type: properties.type,
      magnitude: properties.mag === null ? null : rounded(properties.mag, 1),
      place: text(properties.place),
      date: new Date(properties.time).toISOString().slice(0, 10),
      depth_km: rounded(geometry.coordinates[2], 1),
      stations: properties.nst,
      reviewed: properties.status === 'reviewed',
    })),
  // National Oceanic and Atmospheric Administration.
  weather: () =>
    csv('weather.csv').map((row) => ({
      city: text(row.location),
      date: text(row.date),
      condition: text(row.weather),
      high_c: number(row.temp_max),
      low_c: number(row.temp_min),
      precipitation_mm: number(row.precipitation),
      wind_m_s: number(row.wind),
    })),
}

interface Earthquake {
  properties: {
    type: string
    mag: number | null
    place: string
    time: number
    nst: number | null
    status: string
  }
  /** Longitude, latitude, depth in km. */
  geometry: { coordinates: [number, number, number] }
}

type Cell = string | number | null | undefined

/** Text in plain ASCII; null for what is empty or not known. */
function text(cell: Cell): string | null {
  const plain = String(cell ?? '').trim()
  return /^[\x20-\x7e]+$/.test(plain) && !/^(\.|unknown)$/i.test(plain) ? plain : null
}

function number(cell: Cell): number | null {
  const plain = text(cell)
  return plain === null ? null : Number(plain)
}

/** To so many digits behind the point; never -0. */
const rounded = (cell: Cell, digits: number): number => Number(Number(cell).toFixed(digits)) + 0

/** Words of names that are written in capitals. */
const abbreviations = new Set(['US', 'UPS', 'PSA', 'ABX', 'AFB', 'NY', 'OR'])

/** Names in capitals as names are written. */
const title = (cell: Cell): string | null =>
  text(cell)?.replace(/[A-Z]+/g, (word) => (abbreviations.has(word) ? word : word[0] + word.slice(1).toLowerCase())) ??
  null

/** Two codes of the data set, B and C, are not explained in it. */
const damage = (cell: Cell): string | null => {
  const plain = text(cell)?.toLowerCase() ?? ''
  return ['none', 'minor', 'medium', 'substantial'].includes(plain) ? plain : null
}

const json = <T>(name: string): T => JSON.parse(read(name)) as T
const csv = (name: string) => csvParse(read(name))

function read(name: string): string {
  let entry: string
  try {
    entry = createRequire(import.meta.url).resolve('vega-datasets')
  } catch {
    throw new UserError('the package vega-datasets is missing; install it: npm install --save-dev vega-datasets')
  }
  return readFileSync(join(dirname(entry), '..', 'data', name), 'utf8')
}
