// Trains the classifier of src/safety on public labelled sets, and says what was weighed: `--help`.
//
// 1. One linear model for each question that a set answers (is this tweet hateful, is this post about suicide, ...).
// 2. One for each category, on half of OpenAI's set: words, pairs and pieces of words, and beside them the answers of the first
//    models. All is linear, so the answers fold into one table.
// 3. Calibration and threshold, on scores of texts that the model which gave them was not trained on (five folds).
import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../../src/core/random.ts'
import { type ClassifierModel, classified, createClassifier, encodeClassifier } from '../../src/safety/classifier.ts'
import { createFilter, wordDetectors } from '../../src/safety/index.ts'
import { BUCKETS } from '../../src/safety/ngrams.ts'
import { type Kinds, rowOf } from './features.ts'
import { calibrate, fitLogistic, type Logistic, type Row, scoreOf } from './logistic.ts'
import { nearOf } from './near.ts'
import { type Category, type Example, halfOf, readSets, sets } from './sets.ts'

const SEED = 1
const FOLDS = 5
/** Passes over the rows at most; most fits need fewer. */
const PASSES = 20
/** How much the answers of the first models count among the features of the second. */
const ANSWER = 0.1

interface Question {
  name: string
  ask(example: Example): boolean | undefined
}

const about =
  (set: string, category: Category) =>
  (example: Example): boolean | undefined =>
    example.set === set ? example.labels[category] : undefined

/** Harmless texts beside a set that has none of its own. */
const plain = new Set(['clinc', 'gsm8k', 'goemotions', 'surge'])
const beside =
  (from: ReadonlySet<string>, category: Category) =>
  (example: Example): boolean | undefined =>
    from.has(example.set) || plain.has(example.set) ? (example.labels[category] ?? undefined) : undefined

const prompts = new Set(['ailuminate', 'catqa'])

const questions: readonly Question[] = [
  {
    name: 'davidson, offensive',
    ask: ({ set, about: { offensive } }) => (set === 'davidson' ? !!offensive : undefined),
  },
  ...(
    [
      ...(['davidson', 'hatexplain', 'hatemoji', 'edos', 'misogyny', 'toxigen'] as const).map((set) => [set, 'hate']),
      ...[
        ['hatemoji', 'hate/threatening'],
        ['edos', 'hate/threatening'],
        ['cssrs', 'self-harm'],
        ['civil', 'harassment'],
      ],
    ] as [string, Category][]
  ).map(([set, category]) => ({ name: `${set}, ${category}`, ask: about(set, category) })),
  ...(['illicit', 'illicit/violent', 'self-harm', 'sexual', 'sexual/minors', 'hate'] as const).map((category) => ({
    name: `requests, ${category}`,
    ask: beside(prompts, category),
  })),
  { name: 'all, self-harm', ask: beside(new Set([...prompts, 'cssrs']), 'self-harm') },
  { name: 'all, harassment', ask: beside(new Set(['civil']), 'harassment') },
  {
    name: 'all, hate',
    ask: ({ set, labels }) => (set === 'davidson' || set === 'clinc' || set === 'gsm8k' ? undefined : labels.hate),
  },
]

/** A label of OpenAI's set; a text without any is in no category. */
const labelOf = ({ labels, about: { any } }: Example, category: Category): boolean | undefined =>
  labels[category] ?? (any ? undefined : false)

interface Answer {
  model: Logistic
  mean: number
  deviation: number
}

/** Trains a linear model of each category on `examples`, whose rows have the answers behind the features; folds them into one. */
function fit(
  examples: readonly Example[],
  rows: readonly Row[],
  answers: readonly Answer[],
  cost: number,
): Float64Array[] {
  const width = BUCKETS + answers.length
  return classified.map((category) => {
    const known = examples.flatMap((example, i) => {
      const label = labelOf(example, category)
      return label === undefined ? [] : [{ label, row: rows[i]! }]
    })
    const { weights, bias } = fitLogistic(
      known.map(({ row }) => row),
      known.map(({ label }) => label),
      { cost, width, passes: PASSES, seed: SEED },
    )
    const folded = new Float64Array(BUCKETS + 1)
    folded.set(weights.subarray(0, BUCKETS))
    folded[BUCKETS] = bias
    answers.forEach(({ model, mean, deviation }, k) => {
      const share = (weights[BUCKETS + k]! * ANSWER) / deviation
      for (let b = 0; b < BUCKETS; b++) folded[b]! += share * model.weights[b]!
      folded[BUCKETS]! += share * (model.bias - mean)
    })
    return folded
  })
}

/** Eight bits a weight, the largest of a category being 127. */
function quantise(given: readonly Float64Array[]): ClassifierModel {
  const width = given.length
  const weights = new Int8Array(BUCKETS * width)
  const scale = new Float32Array(width)
  given.forEach((column, c) => {
    const values = column.subarray(0, BUCKETS)
    const step = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127 || 1
    scale[c] = step
    values.forEach((value, b) => {
      weights[b * width + c] = Math.round(value / step)
    })
  })
  const bias = Float32Array.from(given, (column) => column[BUCKETS]!)
  return { weights, scale, bias, threshold: new Float32Array(width).fill(0.5) }
}

interface Prepared {
  examples: Example[]
  texts: string[]
  answers: Answer[]
  rows: Row[]
  folds: number[]
}

function prepare(train: readonly Example[], examples: Example[], kinds: Kinds, cost: number): Prepared {
  const rowsOf = train.map(({ text }) => rowOf(text, kinds))
  const texts = examples.map(({ text }) => text)
  const bare = texts.map((text) => rowOf(text, kinds))
  const answers = questions.map(({ name, ask }): Answer => {
    const known = train.flatMap((example, i) => {
      const label = ask(example)
      return label === undefined ? [] : [{ label, row: rowsOf[i]! }]
    })
    const model = fitLogistic(
      known.map(({ row }) => row),
      known.map(({ label }) => label),
      { cost, width: BUCKETS, passes: PASSES, seed: SEED },
    )
    const scores = bare.map((row) => scoreOf(row, model))
    const mean = scores.reduce((sum, x) => sum + x, 0) / scores.length
    const deviation = Math.sqrt(scores.reduce((sum, x) => sum + (x - mean) ** 2, 0) / scores.length)
    console.error(`${name}: ${known.length} texts, ${known.filter(({ label }) => label).length} of them`)
    return { model, mean, deviation }
  })
  const rows = bare.map((row, i) =>
    rowOf(
      texts[i]!,
      kinds,
      answers.map(({ model, mean, deviation }) => ((scoreOf(row, model) - mean) / deviation) * ANSWER),
    ),
  )
  const draw = random(SEED, 1)
  return { examples, texts, answers, rows, folds: texts.map(() => draw.integer(FOLDS)) }
}

/** Log-odds of each text by a model that was trained without it. */
function unseen(prepared: Prepared, cost: number): number[][] {
  const { examples, texts, rows, folds } = prepared
  const scores: number[][] = []
  for (let fold = 0; fold < FOLDS; fold++) {
    const inside = examples.map((_, i) => folds[i] !== fold)
    const trained = fit(
      examples.filter((_, i) => inside[i]),
      rows.filter((_, i) => inside[i]),
      prepared.answers,
      cost,
    )
    const classifier = createClassifier(quantise(trained))
    texts.forEach((text, i) => {
      if (!inside[i]) scores[i] = [...classifier.logits(text)]
    })
  }
  return scores
}

/** Area under precision over recall. */
function averagePrecision(scores: readonly number[], labels: readonly boolean[]): number {
  const order = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!)
  let [hits, sum] = [0, 0]
  order.forEach((i, rank) => {
    if (!labels[i]) return
    hits++
    sum += hits / (rank + 1)
  })
  return sum / hits
}

const probability = (odds: number) => 1 / (1 + Math.exp(-odds))
const oddsOf = (value: number) => Math.log(value / (1 - value))

/** What the word lists say of texts: the score of each category. */
async function wordScores(texts: readonly string[]): Promise<ReadonlyMap<string, number>[]> {
  const filter = createFilter({ detectors: wordDetectors() })
  const found = []
  for (const text of texts) found.push((await filter.judge(text)).scores)
  return found
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean' },
      sets: { type: 'string' },
      output: { type: 'string' },
      cost: { type: 'string', default: '3' },
      words: { type: 'boolean' },
    },
  })
  if (values.help || !values.sets) {
    console.log(`usage: npx tsx scripts/safety/train-classifier.ts --sets FOLDER [--output models/safety]

Trains on the sets in FOLDER (UTF-8, as published; missing ones are left out):
${sets.map((set) => `  ${set.name} (${set.licence}, ${set.use}): ${set.files.join(', ')}\n      ${set.source}`).join('\n')}

Without --output nothing is written: precision and recall on texts of the training half that the model had not seen.
  --cost N   weight of the losses against the length of the weights (default 3)
  --words    words alone: no pairs, no pieces`)
    return
  }
  const kinds: Kinds = values.words ? { pairs: false, pieces: false } : { pairs: true, pieces: true }
  const cost = Number(values.cost)
  const all = await readSets(values.sets)
  const scored = [...all.values()].flat().filter((example) => {
    const use = sets.find(({ name }) => name === example.set)?.use
    return use === 'score' || (use === 'both' && halfOf(example.text) === 'score')
  })
  const near = nearOf(scored.map(({ text }) => text))
  const kept = [...all.values()].flat().filter((example) => {
    const use = sets.find(({ name }) => name === example.set)?.use
    return use !== 'score' && (use === 'train' || halfOf(example.text) === 'train')
  })
  const train = kept.filter(({ text }) => !near(text))
  console.error(`${train.length} texts; ${kept.length - train.length} left out that are near one that is scored`)
  const openai = train.filter(({ set }) => set === 'openai')
  const prepared = prepare(
    train.filter(({ set }) => set !== 'openai'),
    openai,
    kinds,
    cost,
  )

  const raw = unseen(prepared, cost)
  const platt = classified.map((category, c) => {
    const known = openai.flatMap((example, i) => {
      const label = labelOf(example, category)
      return label === undefined ? [] : [{ label, score: raw[i]![c]! }]
    })
    const [scores, labels] = [known.map(({ score }) => score), known.map(({ label }) => label)]
    const value = averagePrecision(scores, labels)
    console.log(JSON.stringify({ category, positives: labels.filter(Boolean).length, average_precision: round(value) }))
    return calibrate(scores, labels)
  })
  const any = openai.map(({ about: { any } }) => any === true)
  const chances = raw.map((scores) =>
    scores.map((score, c) => probability(platt[c]!.slope * score + platt[c]!.intercept)),
  )
  const words = await wordScores(openai.map(({ text }) => text))
  let best = { threshold: 0.5, share: 0, least: 0 }
  for (const share of [0, 0.3, 0.4, 0.5, 0.6, 0.8, 1])
    for (let threshold = 0.1; threshold < 0.6; threshold += 0.02) {
      const flagged = chances.map((row, i) => {
        const rest = [...words[i]!].some(
          ([name, score]) => name !== 'profanity' && !(classified as readonly string[]).includes(name) && score >= 0.5,
        )
        return (
          rest ||
          row.some((chance, c) => {
            const own = probability(oddsOf(chance) - oddsOf(threshold))
            return 1 - (1 - own) * (1 - share * (words[i]!.get(classified[c]!) ?? 0)) >= 0.5
          })
        )
      })
      const hits = flagged.filter((flag, i) => flag && any[i]).length
      const [precision, recall] = [hits / flagged.filter(Boolean).length, hits / any.filter(Boolean).length]
      const least = Math.min(precision, recall)
      if (least > best.least) best = { threshold, share, least }
      if (Math.abs((threshold * 100) % 10) < 0.5)
        console.error(
          `words ${share}, threshold ${threshold.toFixed(2)}: precision ${round(precision)}, recall ${round(recall)}`,
        )
    }
  console.log(
    JSON.stringify({ threshold: round(best.threshold), words: best.share, precision_and_recall: round(best.least) }),
  )

  if (values.output === undefined) return
  const model = quantise(fit(openai, prepared.rows, prepared.answers, cost))
  platt.forEach(({ slope, intercept }, c) => {
    model.scale[c]! *= slope
    model.bias[c] = model.bias[c]! * slope + intercept
  })
  model.threshold.fill(best.threshold)
  const content = encodeClassifier(model)
  await mkdir(values.output, { recursive: true })
  await writeFile(join(values.output, 'model.safetensors'), content)
  console.log(JSON.stringify({ bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') }))
}

const round = (value: number) => Number(value.toFixed(3))

await main()
