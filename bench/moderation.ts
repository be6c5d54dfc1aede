// bench moderation: precision and recall of the filter on public labelled sets, whose files are not part of this repository.
// Words and phrases alone, and with the classifier.
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { type Category, type Example, halfOf, readSets, sets } from '../scripts/safety/sets.ts'
import { UserError } from '../src/core/types.ts'
import { categories, createFilter, defaultDetectors, type Filter, wordDetectors } from '../src/safety/index.ts'
import { print } from './measure.ts'

const used = sets.filter(({ use }) => use !== 'train')

export const usage = `usage: npm run bench -- moderation --sets FOLDER [--scores FILE]

Judges the sets in FOLDER that the classifier was not trained on, or the half of them that it was not trained on, by words and
phrases alone and by the default filter, at threshold 0.5, with 95 % intervals (Wilson). FOLDER holds one or more of
${used.map(({ files, source, licence }) => `  ${files.join(', ').padEnd(16)}  ${source} (${licence})`).join('\n')}
--scores FILE writes what each filter said of each text, one JSON line a text, without the texts.
`

const flaggedIn =
  (...names: Category[]) =>
  (flagged: ReadonlySet<string>) =>
    names.some((name) => flagged.has(name))
const anyOf = flaggedIn(...categories)

interface Label {
  name: string
  /** What the set says; undefined where it says nothing. */
  wanted(example: Example): boolean | undefined
  /** Which categories answer. */
  found(flagged: ReadonlySet<string>): boolean
}

const labelled = (name: Category, ...also: Category[]): Label => ({
  name,
  wanted: ({ labels }) => labels[name],
  found: flaggedIn(name, ...also),
})

const told = (name: string, key: string, found: Label['found']): Label => ({
  name,
  wanted: ({ about }) => about[key] as boolean | undefined,
  found,
})

const hateful = flaggedIn('hate', 'hate/threatening')
/** Texts that quote or name hate speech to speak against it: none is hateful, so all that is flagged is a false alarm. */
const counterSpeech: Label = {
  name: 'counter-speech',
  wanted: ({ about: { functionality } }) => (String(functionality).startsWith('counter_') ? false : undefined),
  found: hateful,
}

const labels: Readonly<Record<string, readonly Label[]>> = {
  openai: [
    labelled('sexual', 'sexual/minors'),
    labelled('hate', 'hate/threatening'),
    labelled('violence', 'violence/graphic', 'hate/threatening', 'harassment/threatening'),
    labelled('harassment', 'harassment/threatening'),
    labelled('self-harm', 'self-harm/intent', 'self-harm/instructions'),
    labelled('sexual/minors'),
    labelled('hate/threatening'),
    labelled('violence/graphic'),
    told('any', 'any', anyOf),
    told('any, profanity counted', 'any', (flagged) => flagged.size > 0),
  ],
  davidson: [told('offensive', 'offensive', (flagged) => flagged.size > 0)],
  hatecheck: [
    told('hateful', 'hateful', hateful),
    counterSpeech,
    { ...counterSpeech, name: 'counter-speech, any', found: anyOf },
  ],
  hatemojicheck: [told('hateful', 'hateful', hateful)],
  xstest: [told('unsafe', 'unsafe', anyOf)],
  simple: [told('unsafe', 'unsafe', anyOf)],
}

/** 95 % interval of a share (Wilson, 1927). */
function interval(hits: number, of: number): [number, number] | null {
  if (of === 0) return null
  const z = 1.959964
  const centre = (hits + (z * z) / 2) / (of + z * z)
  const half = (z / (of + z * z)) * Math.sqrt((hits * (of - hits)) / of + (z * z) / 4)
  return [round(centre - half), round(centre + half)]
}

const round = (value: number) => Number(value.toFixed(3))
const share = (hits: number, of: number) => (of === 0 ? null : round(hits / of))

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { sets: { type: 'string' }, scores: { type: 'string' }, threads: { type: 'string' } },
  })
  const found = await readSets(
    values.sets ?? '',
    used.map(({ name }) => name),
  )
  if (found.size === 0)
    throw new UserError(
      `bench moderation: --sets must name a folder with ${used.map(({ files }) => files[0]).join(', ')}`,
    )
  const filters = {
    words: createFilter({ detectors: wordDetectors() }),
    default: createFilter({ detectors: await defaultDetectors() }),
  }
  const lines: string[] = []
  for (const [set, examples] of found) {
    const half = used.find(({ name }) => name === set)?.use === 'both'
    const scored = half ? examples.filter(({ text }) => halfOf(text) === 'score') : examples
    const scores = new Map<string, ReadonlyMap<string, number>[]>()
    for (const [name, filter] of Object.entries(filters)) {
      const judged = []
      for (const { text } of scored) judged.push((await filter.judge(text)).scores)
      scores.set(name, judged)
      measure(set, name, filter, scored, judged)
    }
    scored.forEach(({ labels, about }, i) => {
      const said = Object.fromEntries([...scores].map(([name, judged]) => [name, Object.fromEntries(judged[i]!)]))
      lines.push(JSON.stringify({ set, labels, about, ...said }))
    })
  }
  if (values.scores) await writeFile(values.scores, `${lines.join('\n')}\n`)
}

function measure(
  set: string,
  name: string,
  filter: Filter,
  examples: readonly Example[],
  judged: readonly ReadonlyMap<string, number>[],
): void {
  const flagged = judged.map((scores) => new Set(filter.flagged(scores)))
  for (const label of labels[set] ?? []) {
    const known = examples.flatMap((example, i) => {
      const wanted = label.wanted(example)
      return wanted === undefined ? [] : [{ wanted, found: label.found(flagged[i]!) }]
    })
    const positives = known.filter(({ wanted }) => wanted).length
    const alarms = known.filter(({ found }) => found).length
    const hits = known.filter(({ wanted, found }) => wanted && found).length
    print({
      ...{ set, label: label.name, filter: name, labelled: known.length, positives },
      ...{ precision: share(hits, alarms), precisionInterval: interval(hits, alarms) },
      ...{ recall: share(hits, positives), recallInterval: interval(hits, positives) },
      falseAlarms: share(alarms - hits, known.length - positives),
    })
  }
}
