// bench quantize: what few bits cost: likelihood of held-out text and score of tasks, against the model in float32.
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { evaluateLoaded } from '../src/evaluate.ts'
import { type InferenceModel, load, loadForInference } from '../src/load.ts'
import { type QuantizeOptions, quantize } from '../src/quantize.ts'
import { parseRecipe } from '../src/recipe.ts'
import { UserError } from '../src/types.ts'
import { report } from './measure.ts'

/** A way to quantise, as flags of `unmask quantize`. */
const WAYS: Record<string, Partial<QuantizeOptions>> = {
  '8 bits': { bits: 8 },
  '4 bits': { bits: 4 },
  '4 bits, asymmetric': { bits: 4, symmetric: false },
  '4 bits, minima': { bits: 4, minima: true },
  '4 bits, gptq': { bits: 4, method: 'gptq' },
  '4 bits, asymmetric, gptq': { bits: 4, symmetric: false, method: 'gptq' },
  '4 bits, minima, gptq': { bits: 4, minima: true, method: 'gptq' },
  '4 bits, groups of 64': { bits: 4, groupSize: 64 },
  '4 bits, groups of 64, gptq': { bits: 4, groupSize: 64, method: 'gptq' },
  '4 bits, groups of 64, asymmetric, gptq': { bits: 4, groupSize: 64, symmetric: false, method: 'gptq' },
}

export const usage = `usage: npm run bench -- quantize --model MODEL --data FILE [flags]

Quantises MODEL and measures each result beside MODEL in float32 (the peer): the negative ELBO, or of an autoregressive
model the likelihood, of held-out text in nats per token, and the share of right answers to tasks. Of a GGUF file, what
decoding makes of its own blocks is measured too.

  --ways LIST     which of: ${Object.keys(WAYS).join('; ')} (separated by ;, default: all)
  --calibration F text for gptq; without it gptq is left out
  --data-tokens N tokens of the text (default 16384)
  --tasks LIST    tasks such as add,sort,reverse,count (default: none)
  --task-rows N   rows of each task (default 200)
  --threads N     threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      data: { type: 'string' },
      calibration: { type: 'string' },
      ways: { type: 'string', default: Object.keys(WAYS).join(';') },
      'data-tokens': { type: 'string', default: '16384' },
      tasks: { type: 'string' },
      'task-rows': { type: 'string', default: '200' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  const { model, data, calibration } = values
  if (!model || !data) throw new UserError('bench quantize: name a model (--model) and held-out text (--data)')
  const ways = values.ways.split(';').map((way) => way.trim())
  for (const way of ways) if (!WAYS[way]) throw new UserError(`bench quantize: there is no way ${JSON.stringify(way)}`)
  const { decode, eval: settings } = parseRecipe({
    model,
    output_dir: '.',
    data: { train_path: [data] },
    eval: { tasks: values.tasks?.split(',') ?? [], task_rows: Number(values['task-rows']), prompts: 0 },
  } as Parameters<typeof parseRecipe>[0])

  const measure = async (loaded: InferenceModel) => {
    const { likelihood, comparison } = await evaluateLoaded(loaded, undefined, {
      data: [data],
      dataTokens: Number(values['data-tokens']),
      template: 'none',
      decode,
      eval: settings,
      threads: Number(values.threads),
    })
    const scores = comparison?.diffusion ?? comparison?.ar
    return { nll: likelihood!.nll, score: scores?.score?.accuracy }
  }
  const full = await load(model)
  const peer = await measure(full)
  const compare = async (name: string, loaded: InferenceModel) => {
    const { nll, score } = await measure(loaded)
    const line = { bench: 'quantize', case: `${full.name}, ${name}`, peer: 'float32' }
    report({ ...line, value: nll, unit: 'nats/token', peerValue: peer.nll })
    if (score !== undefined) report({ ...line, value: score, unit: 'of answers', peerValue: peer.score! })
  }
  const stored = await loadForInference(model)
  if ([...stored.parameters.values()].some((parameter) => 'packed' in parameter)) await compare('as stored', stored)
  const folder = await mkdtemp(join(tmpdir(), 'unmask-bench-'))
  try {
    for (const way of ways) {
      const gptq = WAYS[way].method === 'gptq'
      if (gptq && !calibration) continue
      const out = join(folder, way)
      await quantize({
        model,
        out,
        template: 'none',
        ...WAYS[way],
        ...(gptq ? { calibration: [calibration!] } : {}),
      })
      await compare(way, await loadForInference(out))
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}
