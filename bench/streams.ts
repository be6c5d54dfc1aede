// bench streams: tokens per second of texts that are written at the same time, by how many there are, in several ways in turn.
import { parseArgs } from 'node:util'
import { alternate, report } from './measure.ts'
import { openWays, PEER_USAGE, type Row, readRowsOf, type Way, type Written, wayFlags } from './ways.ts'

export const usage = `usage: npm run bench -- streams --data FILE[,FILE...] --way 'NAME=MODEL?SETTINGS' [--way ...] [flags]

Continues the prompts of the files, 1 text at a time, then 4, 16 and 32, in every way in turn. All texts of a round begin
together; where there are more prompts than texts at a time, the next batch begins when the last has ended. Prints for each
number of texts and each way tokens per second of all together (the median of the rounds, beside the first way's), tokens per
forward of a text, and the number of texts that are the same tokens as those of the first way with the same model, one at a
time. SETTINGS are settings of decoding, such as mode=speculative&lookup=0.

${PEER_USAGE}

  --peer 'NAME=FILE?lookup=LOOKUP'
  --streams LIST      texts at a time (default 1,4,16,32)
  --prompts N         prompts of a round (default 32)
  --prompt-tokens N   of a text without a prompt, the first tokens are the prompt (default 16)
  --max-new-tokens N  (default 96)
  --rounds N          measured rounds (default 5)
  --warmup N          rounds before them (default 1)
  --threads N         threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      ...wayFlags,
      streams: { type: 'string', default: '1,4,16,32' },
      prompts: { type: 'string', default: '32' },
      'prompt-tokens': { type: 'string', default: '16' },
      'max-new-tokens': { type: 'string', default: '96' },
      rounds: { type: 'string', default: '5' },
      warmup: { type: 'string', default: '1' },
    },
  })
  const opened = await openWays(values)
  try {
    const rows: Row[] = []
    const [count, promptTokens] = [Number(values.prompts), Number(values['prompt-tokens'])]
    for (const file of opened.files)
      rows.push(...(await readRowsOf(file, opened.first, { count: count - rows.length, promptTokens })))
    const prompts = rows.map(({ ids }) => ids)
    const alone = new Map<string, Written[]>()
    for (const { model, write, isPeer } of opened.ways) {
      if (isPeer || alone.has(model)) continue
      const texts: Written[] = []
      for (const ids of prompts) texts.push(...(await write([ids])))
      alone.set(model, texts)
    }
    const rounds = { rounds: Number(values.rounds), warmup: Number(values.warmup), rest: 0 }
    for (const streams of values.streams.split(',').map(Number)) {
      const contestants = opened.ways.map((way) => contestant(way, prompts, streams))
      const speeds = await alternate(Object.fromEntries(contestants.map(({ name, run }) => [name, run])), rounds)
      for (const { name, way, last } of contestants) {
        const line = { bench: 'streams', case: `${streams} at a time, ${name}` }
        const first = opened.ways[0]!
        report({ ...line, value: speeds[name]!, unit: 'tokens/s', peer: first.name, peerValue: speeds[first.name]! })
        const forwards = sum(last.map(({ forwards }) => forwards))
        if (!way.isPeer)
          report({ ...line, value: sum(last.map(({ tokens }) => tokens)) / forwards, unit: 'tokens/forward' })
        const same = way.isPeer ? first.model : way.model
        const equal = alone.get(same)!.filter(({ ids }, i) => ids.join() === last[i]?.ids.join()).length
        report({ ...line, value: equal, unit: 'same tokens', peer: 'alone', peerValue: prompts.length })
      }
    }
  } finally {
    await opened.close()
  }
}

/** A run writes all prompts and returns tokens per second; `last` are the texts of the latest. */
function contestant(way: Way, prompts: readonly number[][], streams: number) {
  const last: Written[] = []
  async function run(): Promise<number> {
    last.length = 0
    const start = performance.now()
    for (let i = 0; i < prompts.length; i += streams) last.push(...(await way.write(prompts.slice(i, i + streams))))
    return sum(last.map(({ tokens }) => tokens)) / ((performance.now() - start) / 1000)
  }
  return { name: way.name, way, last, run }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
