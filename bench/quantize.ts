// bench quantize: what quantising costs: likelihood of held-out text and score of tasks, against the model in float32.
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type InferenceModel, load, loadForInference } from '../src/checkpoint/load.ts'
import { UserError } from '../src/core/types.ts'
import { columnNames, readExample } from '../src/data/example.ts'
import { findFiles } from '../src/data/files.ts'
import { readRows } from '../src/data/rows.ts'
import { createForward } from '../src/decode/forward.ts'
import { type ChoiceItem, choiceItems, choose } from '../src/eval/choices.ts'
import { pairedDifference } from '../src/eval/score.ts'
import { evaluateLoaded } from '../src/jobs/evaluate.ts'
import { type QuantizeOptions, quantize } from '../src/jobs/quantize.ts'
import { parseRecipe } from '../src/jobs/recipe.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { report } from './measure.ts'

/** A way to quantise, as flags of `unmask quantize`. */
const WAYS: Record<string, Partial<QuantizeOptions>> = {
  '8 bits': { bits: 8 },
  '8 bits, activations too': { bits: 8, activations: 8 },
  '4 bits': { bits: 4 },
  '4 bits, asymmetric': { bits: 4, symmetric: false },
  '4 bits, offsets': { bits: 4, offsets: true },
  '4 bits, gptq': { bits: 4, method: 'gptq' },
  '4 bits, gptq, not sequential': { bits: 4, method: 'gptq', sequential: false },
  '4 bits, asymmetric, gptq': { bits: 4, symmetric: false, method: 'gptq' },
  '4 bits, offsets, gptq': { bits: 4, offsets: true, method: 'gptq' },
  '4 bits, groups of 64': { bits: 4, groupSize: 64 },
  '4 bits, groups of 64, gptq': { bits: 4, groupSize: 64, method: 'gptq' },
  '4 bits, groups of 64, asymmetric, gptq': { bits: 4, groupSize: 64, symmetric: false, method: 'gptq' },
}

const ALTERNATIVES = 7

export const usage = `usage: npm run bench -- quantize --model MODEL --data FILE [flags]

Quantises MODEL and measures each result beside MODEL in float32 (the peer): the negative ELBO, or of an autoregressive
model the likelihood, of held-out text in nats per token, and the share of right answers to tasks. Of a GGUF file, what
decoding makes of its own blocks is measured too. With --choices an autoregressive model also chooses the true completion
of a prompt among ${ALTERNATIVES + 1}, by log-probability per byte; the seven others are those of other rows. "error" is the standard
error of the difference from the peer on the same items.

  --ways LIST     which of: ${Object.keys(WAYS).join('; ')} (separated by ;, default: all)
  --calibration F text for gptq; without it gptq is left out
  --data-tokens N tokens of the text (default 16384)
  --tasks LIST    tasks such as add,sort,reverse,count (default: none)
  --task-rows N   rows of each task (default 200)
  --choices F     rows with prompt and completion, such as questions without and with their last sentence (default: none)
  --choice-rows N how many of them (default 400)
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
      choices: { type: 'string' },
      'choice-rows': { type: 'string', default: '400' },
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

  const items = values.choices ? await readChoices(values.choices, Number(values['choice-rows'])) : []
  const chosen = async ({ model, parameters, tokenizer }: InferenceModel) => {
    if (typeof model.config.mask_token_id === 'number')
      throw new UserError('bench quantize: --choices needs an autoregressive model')
    const executor = createExecutor({ threads: Number(values.threads) })
    try {
      return await choose(await createForward(executor, model, parameters, []), tokenizer, items)
    } finally {
      await executor.dispose()
    }
  }
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
    const choices = items.length > 0 ? await chosen(loaded) : undefined
    return { nll: likelihood!.nll, score: scores?.score?.accuracy, choices }
  }
  const full = await load(model)
  const peer = await measure(full)
  const compare = async (name: string, loaded: InferenceModel) => {
    const { nll, score, choices } = await measure(loaded)
    const line = { bench: 'quantize', case: `${full.name}, ${name}`, peer: 'float32' }
    report({ ...line, value: nll, unit: 'nats/token', peerValue: peer.nll })
    if (score !== undefined) report({ ...line, value: score, unit: 'of answers', peerValue: peer.score! })
    if (!choices) return
    const { difference, high } = pairedDifference(peer.choices!, choices, 1)
    report({
      ...line,
      value: share(choices),
      unit: 'of choices',
      peerValue: share(peer.choices!),
      error: high - difference,
    })
  }
  const stored = await loadForInference(model)
  if ([...stored.parameters.values()].some((parameter) => 'format' in parameter && parameter.format))
    await compare('as stored', stored)
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

const share = (right: readonly boolean[]): number => right.filter(Boolean).length / right.length

async function readChoices(path: string, count: number): Promise<ChoiceItem[]> {
  const rows: { prompt: string; completion: string }[] = []
  for (const file of await findFiles(path))
    for await (const row of readRows(file, ['prompt', 'completion'])) {
      const example = 'error' in row ? row.error : readExample(row.value, columnNames({}))
      if (typeof example === 'string' || example.kind !== 'prompt')
        throw new UserError(`${file.path}:${row.line}: --choices takes rows with a prompt and a completion`)
      rows.push(example)
    }
  return choiceItems(rows, { count, alternatives: ALTERNATIVES, seed: 0 })
}
