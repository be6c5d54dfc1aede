// Compares unmask with reference results in a folder: config.json, model.safetensors, cases.json, cases.safetensors and
// gradients.bdlm.elbo.safetensors, as made from PyTorch. One result per case, with the largest error.
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { openCheckpoint, openSafetensors } from '../../src/checkpoint/index.ts'
import { createModel, type Model, supportedModelTypes } from '../../src/models/index.ts'
import type { Variant } from '../../src/objectives/index.ts'
import { objectiveProgram } from '../../src/train/graph.ts'
import type { ModelConfig, Parameter, TensorData } from '../../src/core/types.ts'
import { type BackEnd, type BackEndName, openBackEnd } from './back-ends.ts'
import { type DecodeCases, decodeDifferences } from './decode.ts'
import { type LogitsInput, logitsProgram, type Mask } from './logits.ts'

export interface CaseResult {
  folder: string
  case: string
  /** Largest error in the measure of the case: relative to the largest absolute value unless said otherwise. */
  error: number | null
  tolerance: number | null
  pass: boolean | null
  note?: string
}

interface Cases {
  block_size: number
  length: number
  batch: number
  mask_token_id: number
  losses: Record<string, number>
  adamw: {
    lr: number
    betas: [number, number]
    eps: number
    weight_decay: number
    clip_grad_norm: number
    losses: number[]
    grad_norms: number[]
  }
  decode: DecodeCases
}

const LOGITS = 1e-4
const LOSS = 1e-5
const GRADIENT = 1e-4

/** Largest |a - b| over the largest |b|. */
function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let largest = 0
  let error = 0
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]))
    const difference = Math.abs(actual[i] - expected[i])
    error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(error, difference)
  }
  // Where all is 0, such as the gradient of an expert that nobody chose, it must be so exactly.
  return error === 0 ? 0 : error / largest
}

/** Runs every case of one folder; PyTorch does not decode. */
export async function checkFolder(folder: string, backEnd: BackEndName = 'onnxruntime'): Promise<CaseResult[]> {
  const name = basename(folder)
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as ModelConfig
  if (!supportedModelTypes.includes(config.model_type)) {
    const note = `model_type ${config.model_type} is not supported`
    return [{ folder: name, case: 'architecture', error: null, tolerance: null, pass: null, note }]
  }
  const opened = await openBackEnd(backEnd)
  try {
    return await checkModel(opened, folder, name, createModel(config))
  } finally {
    await opened.dispose()
  }
}

async function readAll(file: string): Promise<Map<string, Parameter>> {
  const tensors = await openSafetensors(file)
  try {
    const values = new Map<string, Parameter>()
    for (const [name, { shape }] of tensors.tensors) {
      const { data } = await tensors.readRaw(name)
      values.set(name, { shape, data: data instanceof Float32Array ? data : Float32Array.from(data, Number) })
    }
    return values
  } finally {
    await tensors.close()
  }
}

async function checkModel(backEnd: BackEnd, folder: string, name: string, model: Model): Promise<CaseResult[]> {
  const cases = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as Cases
  const expected = await readAll(join(folder, 'cases.safetensors'))
  const weights = new Map<string, Parameter>()
  const checkpoint = await openCheckpoint(folder)
  for (const [tensor, shape] of model.parameters) weights.set(tensor, { shape, data: await checkpoint.read(tensor) })
  await checkpoint.close()

  const results: CaseResult[] = []
  const report = (label: string, error: number, tolerance: number) =>
    results.push({ folder: name, case: label, error, tolerance, pass: error <= tolerance })

  const rows = cases.batch
  const { length } = cases
  const take = (key: string): Float32Array => {
    const value = expected.get(key)
    if (!value) throw new Error(`${folder}: cases.safetensors has no ${key}`)
    return value.data
  }
  const ids = take('input_ids')
  const documents = take('document_ids')
  const masked = take('masked')
  const noised = ids.map((id, i) => (masked[i] ? cases.mask_token_id : id))
  const one = new Float32Array(rows * length)

  const masks: [string, Mask, ArrayLike<number>][] = [
    ['causal', 'causal', one],
    ['bidirectional', 'bidirectional', one],
    ['block_causal', { blockCausal: cases.block_size }, one],
    ['block_causal_documents', { blockCausal: cases.block_size }, documents],
  ]
  async function logits(mask: Mask, input: LogitsInput): Promise<Float32Array> {
    const { program, feeds } = logitsProgram(model, mask, input)
    return (await backEnd.run(program, { ...feeds, ...parameterFeeds(weights) })).logits.data as Float32Array
  }
  for (const [label, mask, documentIds] of masks) {
    const actual = await logits(mask, { rows, length, ids, documents: documentIds })
    report(`logits.${label}`, relativeError(actual, take(`logits.${label}`)), LOGITS)
  }
  const both = new Float32Array(2 * rows * length)
  both.set(noised)
  both.set(ids, rows * length)
  const all = await logits({ blockDiffusion: cases.block_size }, { rows, length, ids: both, documents })
  const half = all.subarray(0, all.length / 2)
  report('logits.bdlm_noised_half', relativeError(half, take('logits.bdlm_noised_half')), LOGITS)

  const context = { backEnd, model, weights, cases, expected: take, documents, masked, rows, length }
  for (const [label, value] of Object.entries(cases.losses)) {
    const actual = await lossOf(label, context)
    report(`loss.${label}`, Math.abs(actual - value) / Math.abs(value), LOSS)
  }
  results.push(...(await checkGradients(folder, name, context)))
  results.push(...(await checkAdamw(name, context)))
  if (!backEnd.executor) return results
  const decoded = await decodeDifferences(backEnd.executor, model, weights, cases.decode, cases.mask_token_id)
  for (const [i, different] of decoded.entries()) report(`decode.${i} (tokens that differ)`, different, 0)
  return results
}

interface Context {
  backEnd: BackEnd
  model: Model
  weights: Map<string, Parameter>
  cases: Cases
  expected(key: string): Float32Array
  documents: ArrayLike<number>
  masked: ArrayLike<number>
  rows: number
  length: number
}

/** Loss positions of the golden objective: t per sequence, `elbo` over all B L positions, `mean` over masked ones. */
function feedsFor(context: Context, kind: 'bdlm' | 'mdlm', weighting: string, clean: ArrayLike<number>) {
  const { cases, documents, masked, rows, length, expected } = context
  const t = expected('t')
  const index: number[] = []
  for (let i = 0; i < rows * length; i++) if (masked[i]) index.push(i)
  const whole = (shape: number[], values: ArrayLike<number>): TensorData => ({
    dtype: 'int64',
    shape,
    data: BigInt64Array.from(Array.from(values, (value) => BigInt(value))),
  })
  const noised = Array.from(clean, (id, i) => (masked[i] ? cases.mask_token_id : id))
  const ids = kind === 'bdlm' ? [...noised, ...Array.from(clean)] : noised
  const copies = kind === 'bdlm' ? 2 : 1
  const weight = (i: number) => (weighting === 'elbo' ? 1 / t[Math.floor(i / length)] / (rows * length) : 1 / index.length)
  return {
    index,
    feeds: {
      input_ids: whole([copies * rows, length], ids),
      position_ids: whole(
        [copies * rows, length],
        ids.map((_, i) => i % length),
      ),
      document_ids: whole([rows, length], documents),
      loss_index: whole([index.length], index),
      labels: whole(
        [index.length],
        index.map((i) => clean[i]),
      ),
      loss_weights: { dtype: 'float32' as const, shape: [index.length], data: Float32Array.from(index.map(weight)) },
    },
  }
}

const objectiveOf = (kind: 'bdlm' | 'mdlm', blockSize: number): Variant =>
  kind === 'bdlm' ? { kind, blockSize, copies: 1, aligned: false } : { kind, copies: 1 }

const parameterFeeds = (weights: ReadonlyMap<string, Parameter>) =>
  Object.fromEntries([...weights].map(([name, { shape, data }]) => [name, { dtype: 'float32' as const, shape, data }]))

async function lossOf(label: string, context: Context): Promise<number> {
  const { backEnd, model, weights, cases, rows, length, expected, documents } = context
  const cap = label.startsWith('cap_ids.')
  const [kind, weighting, penalty] = label.replace('cap_ids.', '').split('.') as ['bdlm' | 'mdlm', string, string?]
  const clean = expected(cap ? 'cap_input_ids' : 'input_ids')
  const { feeds, index } = feedsFor(context, kind, weighting, clean)
  // CAP: lambda times the mean entropy where the masked token is predicted correctly (LLaDA2.0, section 5.2).
  const confidence = penalty && { beta: Number(penalty.replace('cap_lambda_', '')), temperature: 1 }
  const objective = { ...objectiveOf(kind, cases.block_size), ...(confidence && { confidence }) } as Variant
  const each = new Float32Array(index.length).fill(1 / index.length)
  const masks = confidence && { entropy_weights: { dtype: 'float32' as const, shape: [index.length], data: each } }
  const program = objectiveProgram(model, objective, { rows, length }, noExtras)
  const outputs = await backEnd.run(program, { ...feeds, ...masks, ...parameterFeeds(weights) })
  return Number(outputs.loss.data[0])
}

const noExtras = { gradients: false }

async function checkGradients(folder: string, name: string, context: Context): Promise<CaseResult[]> {
  const file = join(folder, 'gradients.bdlm.elbo.safetensors')
  if (!existsSync(file)) return []
  const { backEnd, model, weights, cases, rows, length, expected } = context
  const { feeds } = feedsFor(context, 'bdlm', 'elbo', expected('input_ids'))
  const objective = objectiveOf('bdlm', cases.block_size)
  const outputs = await backEnd.gradients(model, objective, { rows, length }, { ...feeds, ...parameterFeeds(weights) })
  let worst = 0
  for (const [tensor, { data }] of await readAll(file))
    worst = Math.max(worst, relativeError(outputs[`grad.${tensor}`].data as Float32Array, data))
  return [
    { folder: name, case: 'gradients.bdlm.elbo', error: worst, tolerance: GRADIENT, pass: worst <= GRADIENT },
  ]
}

/** Six updates of the real optimiser on the golden batch. */
async function checkAdamw(name: string, context: Context): Promise<CaseResult[]> {
  const { backEnd, model, weights, cases, expected, rows, length } = context
  const { adamw } = cases
  const { feeds } = feedsFor(context, 'bdlm', 'elbo', expected('input_ids'))
  const stepper = await backEnd.stepper(model, weights, {
    beta1: adamw.betas[0],
    beta2: adamw.betas[1],
    epsilon: adamw.eps,
    weightDecay: adamw.weight_decay,
    maxGradNorm: adamw.clip_grad_norm,
  })
  let lossError = 0
  let normError = 0
  for (const [i, value] of adamw.losses.entries()) {
    const objective = objectiveOf('bdlm', cases.block_size)
    const { loss, gradNorm } = await stepper.update([{ objective, rows, length, feeds }], adamw.lr)
    lossError = Math.max(lossError, Math.abs(loss - value) / value)
    normError = Math.max(normError, Math.abs(gradNorm - adamw.grad_norms[i]) / adamw.grad_norms[i])
  }
  await stepper.dispose()
  return [
    { folder: name, case: 'adamw.losses', error: lossError, tolerance: LOSS, pass: lossError <= LOSS },
    { folder: name, case: 'adamw.grad_norms', error: normError, tolerance: GRADIENT, pass: normError <= GRADIENT },
  ]
}
