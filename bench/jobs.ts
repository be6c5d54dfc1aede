// bench jobs: models and modes on the held-out rows of a job, in turns: how well they answer, in how many forwards, how fast.
import { parseArgs } from 'node:util'
import { UserError } from '../src/core/types.ts'
import { type Estimate, ratioDifference, ratioOfSums } from '../src/eval/estimate.ts'
import { isJsonObject, scoreJson } from '../src/eval/json-score.ts'
import { characterErrorRate, exactMatches } from '../src/eval/text-score.ts'
import { openBrowserWays } from './browser-ways.ts'
import { print, report } from './measure.ts'
import { openWays, PEER_USAGE, type Row, readRowsOf, type Way, type Written, wayFlags } from './ways.ts'

export const usage = `usage: npm run bench -- jobs --data FILE[,FILE...] --way 'NAME=MODEL?SETTINGS' [--way ...] [flags]

Answers the rows of the files (a prompt and a completion each) in every way, 8 rows at a time in turn, and prints for each way
the character error rate, the share of exact answers, tokens per forward, tokens per second and the number of answers that are
the same tokens as those of the first way with the same model, or for a peer of the first way. Where all completions are JSON
objects, also the share of answers that are the same JSON, and precision, recall and F1 of their fields. Errors are standard
errors over the rows, of a value or of its difference from the peer's. SETTINGS are settings of decoding, such as mode=speculative&lookup=0. Speeds are compared with the first way's, or
that of the way which --beside names.

${PEER_USAGE}

  --peer 'NAME=FILE?lookup=LOOKUP'
  --browser           all of it in Chromium, each model in a worker of one page. A peer is then transformers.js on a folder
                      (scripts/to_transformersjs.py writes one), from the folder that TRANSFORMERS_JS names
  --beside NAME       the way, or peer, that speeds are compared with (default: the first way)
  --prompts N         rows of each file (default 200)
  --max-new-tokens N  (default 128)
  --threads N         threads (default: the cores of the machine)
  --show N            answers to print, as JSON lines (default 0)
`

/** Rows that one way answers before the next has its turn. */
const TURN = 8

/** A way, and its answers to all rows. */
type Answered = Way & { results: Written[] }

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      ...wayFlags,
      prompts: { type: 'string', default: '200' },
      'max-new-tokens': { type: 'string', default: '128' },
      show: { type: 'string', default: '0' },
      browser: { type: 'boolean', default: false },
      beside: { type: 'string' },
    },
  })
  const opened = values.browser ? await openBrowserWays(values) : await openWays(values)
  try {
    const rows: Row[] = []
    for (const file of opened.files)
      rows.push(...(await readRowsOf(file, opened.first, { count: Number(values.prompts) })))
    const ways = opened.ways.map((way): Answered => ({ ...way, results: [] }))
    for (let start = 0; start < rows.length; start += TURN)
      for (const { write, results } of ways)
        for (const { ids } of rows.slice(start, start + TURN)) results.push(...(await write([ids])))
    for (const [i, row] of rows.slice(0, Number(values.show)).entries())
      print({
        prompt: row.prompt,
        reference: row.reference,
        answers: ways.map(({ results }) => results[i]?.text),
      })
    const references = rows.map(({ reference }) => reference)
    const [first] = ways as [Answered]
    const beside = values.beside === undefined ? first : ways.find(({ name }) => name === values.beside)
    if (!beside) throw new UserError(`--beside: there is no way ${values.beside}`)
    for (const way of ways) {
      const same = ways.find(({ model }) => model === (way.isPeer ? first : way).model) as Answered
      describe(way, { references, same, beside })
    }
  } finally {
    await opened.close()
  }
}

function describe(
  way: Answered,
  { references, same, beside }: { references: string[]; same: Answered; beside: Answered },
): void {
  const line = { bench: 'jobs', case: way.name }
  const pairs = way.results.map(({ text }, i) => ({ text, reference: references[i] as string }))
  const estimate = (unit: string, { value, stderr }: Estimate) => report({ ...line, value, unit, error: stderr })
  estimate('character error rate', characterErrorRate(pairs))
  estimate('exact answers', exactMatches(pairs))
  if (references.every(isJsonObject)) {
    const { exact, precision, recall, f1 } = scoreJson(pairs)
    estimate('exact JSON', exact)
    estimate('field precision', precision)
    estimate('field recall', recall)
    estimate('field F1', f1)
  }
  const sums = ({ results }: Answered, whole: 'forwards' | 'seconds') => ({
    parts: results.map(({ tokens }) => tokens),
    wholes: results.map((result) => result[whole]),
  })
  const ratio = ({ parts, wholes }: ReturnType<typeof sums>) => ratioOfSums(parts, wholes)
  if (!Number.isNaN(way.results[0]?.forwards)) estimate('tokens/forward', ratio(sums(way, 'forwards')))
  const [own, peer] = [sums(way, 'seconds'), sums(beside, 'seconds')]
  const { stderr } = ratioDifference(own, peer)
  report({
    ...line,
    ...{ value: ratio(own).value, unit: 'tokens/s', peer: beside.name, peerValue: ratio(peer).value, error: stderr },
  })
  const equal = way.results.filter(({ ids }, i) => ids.join() === same.results[i]?.ids.join()).length
  report({ ...line, value: equal, unit: 'same tokens', peer: same.name, peerValue: way.results.length })
}
