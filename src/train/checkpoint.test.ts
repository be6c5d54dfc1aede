import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { random } from '../core/random.ts'
import { type InitialParameter, type Parameter, valuesOf } from '../core/types.ts'
import {
  checkpointPath,
  latestCheckpoint,
  listCheckpoints,
  pruneCheckpoints,
  readState,
  removeLeftovers,
  saveTrainingCheckpoint,
} from './checkpoint.ts'
import { mergeCheckpoints } from './merge.ts'
import { openWeights, storedMoments, storedWeights, trainedFiles } from './trained-files.ts'

let run: string
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), 'unmask-checkpoint-'))
})
afterEach(() => rm(run, { recursive: true }))

const stateOf = (step: number) => ({
  format: 1 as const,
  step,
  tokens: 10 * step,
  stage: 0,
  data_position: { index: step },
  elapsed_s: 0.5,
  validation: null,
  baseline: null,
  best: [],
  recent: { losses: [0.1, 1 / 3], gradNorms: [1, 2] },
  config: { seed: 3 },
  config_hash: 'abc',
  versions: { node: 'v20' },
})

function weightsOf(seed: number): Map<string, Parameter> {
  const draws = random(seed)
  return new Map([
    ['a.weight', { shape: [3, 5], data: draws.fillNormal(new Float32Array(15)) }],
    ['b.bias', { shape: [4], data: draws.fillNormal(new Float32Array(4)) }],
  ])
}

const momentsOf = (seed: number) =>
  new Map([...weightsOf(seed + 100)].map(([name, value]) => [`exp_avg.${name}`, value]))

const trainerOf = (seed: number, parameters: () => Promise<Map<string, Parameter>> = async () => weightsOf(seed)) =>
  trainedFiles({
    parameters,
    optimizerState: async () => ({ step: seed, tensors: momentsOf(seed) }),
    fill: async () => undefined,
  })

const save = (step: number, files?: Record<string, string>) =>
  saveTrainingCheckpoint(run, trainerOf(step), stateOf(step), files)
const allOf = async (parameters: ReadonlyMap<string, InitialParameter>) => {
  const all = new Map<string, Parameter>()
  for (const [name, parameter] of parameters) all.set(name, await valuesOf(parameter))
  return all
}
const steps = async () => (await listCheckpoints(run)).map(({ step }) => step)

describe('checkpoints', () => {
  it('come back bitwise, with state and files', async () => {
    const path = await save(100, { 'config.json': '{"model_type":"llama"}\n' })
    expect(path).toBe(join(run, 'checkpoints', 'step-0000100'))
    expect(await readState(path)).toEqual({ ...stateOf(100), optimizer_step: 100 })
    expect(await allOf(await storedWeights(path))).toEqual(weightsOf(100))
    expect(await allOf(await storedMoments(path))).toEqual(momentsOf(100))
    expect(await readFile(join(path, 'config.json'), 'utf8')).toBe('{"model_type":"llama"}\n')
    expect((await readdir(path)).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('replace an older one of the same step', async () => {
    await save(5)
    const path = await saveTrainingCheckpoint(run, trainerOf(6), stateOf(5))
    expect(await allOf(await storedWeights(path))).toEqual(weightsOf(6))
    expect(await readdir(join(run, 'checkpoints'))).toEqual(['step-0000005'])
  })

  it('are not there at all where writing fails', async () => {
    const failing = trainerOf(1, () => Promise.reject(new Error('the executor is gone')))
    await expect(saveTrainingCheckpoint(run, failing, stateOf(1))).rejects.toThrow(/executor is gone/)
    expect(await readdir(join(run, 'checkpoints'))).toEqual([])
  })

  it('are found whole only: half-written folders are not listed, damaged ones are passed over', async () => {
    expect(await latestCheckpoint(run)).toBe(undefined)
    for (const step of [8, 9, 10, 11]) await save(step)
    await mkdir(join(run, 'checkpoints', '.step-0000012.0a1b2c.tmp'))
    expect((await latestCheckpoint(run))?.step).toBe(11)
    await truncate(join(checkpointPath(run, 11), 'model.safetensors'), 150)
    await rm(join(checkpointPath(run, 10), 'optimizer.safetensors'))
    await writeFile(join(checkpointPath(run, 9), 'trainer_state.json'), '{"format":1,"step":9')
    const damaged: string[] = []
    expect(await latestCheckpoint(run, (path) => damaged.push(path))).toEqual({ step: 8, path: checkpointPath(run, 8) })
    expect(damaged).toEqual([11, 10, 9].map((step) => checkpointPath(run, step)))
    await removeLeftovers(run)
    expect(await readdir(join(run, 'checkpoints'))).toEqual(
      (await listCheckpoints(run)).map(({ path }) => path.slice(-12)),
    )
  })

  it('are pruned to the newest and the chosen ones', async () => {
    for (const step of [1, 2, 3, 4, 5]) await save(step)
    await pruneCheckpoints(run, { step: 5, keepLast: 2, keepSteps: [2, 77] })
    expect(await steps()).toEqual([2, 4, 5])
    await pruneCheckpoints(run, { step: 4, keepLast: 1, keepSteps: [] })
    expect(await steps()).toEqual([4, 5])
    await pruneCheckpoints(run, { step: 5, keepLast: 0, keepSteps: [] })
    expect(await steps()).toEqual([5])
  })

  it('say what is wrong with a state', async () => {
    const path = await save(1)
    const write = (state: object) => writeFile(join(path, 'trainer_state.json'), JSON.stringify(state))
    await write({ ...stateOf(1), format: 2 })
    await expect(readState(path)).rejects.toThrow(/trainer_state.json: format 2 is not known/)
    await write({ ...stateOf(1), tokens: -1, config: 'none' })
    await expect(readState(path)).rejects.toThrow(/tokens, optimizer_step, config: missing or not of the right type/)
  })
})

describe('mergeCheckpoints', () => {
  it('averages every parameter and keeps the small files of the model', async () => {
    const files = { 'config.json': '{}\n', 'tokenizer.json': '{"a":1}\n' }
    const paths = [await save(1, files), await save(2), await save(3)]
    await mergeCheckpoints(paths, join(run, 'merged'))
    const merged = join(run, 'merged')
    expect((await readdir(merged)).sort()).toEqual([
      ...['README.md', 'config.json', 'model.safetensors', 'provenance.json', 'tokenizer.json'],
    ])
    const file = await openWeights(merged)
    try {
      for (const [name, { shape }] of weightsOf(1)) {
        expect(file.tensors.get(name)!.shape).toEqual(shape)
        const values = await file.read(name)
        for (const [i, value] of values.entries()) {
          const sum = [1, 2, 3].reduce((total, seed) => total + weightsOf(seed).get(name)!.data[i]!, 0)
          expect(value).toBe(Math.fround(sum / 3))
        }
      }
    } finally {
      await file.close()
    }
  })

  it('gives back a single checkpoint bitwise', async () => {
    const path = await save(4)
    await mergeCheckpoints([path], join(run, 'same'))
    const [before, after] = await Promise.all(
      [path, join(run, 'same')].map((folder) => readFile(join(folder, 'model.safetensors'))),
    )
    expect(after!.equals(before!)).toBe(true)
  })

  it('refuses checkpoints of different models and leaves nothing behind', async () => {
    const first = await save(1)
    const wrongShape = new Map(weightsOf(2)).set('b.bias', { shape: [2], data: new Float32Array(2) })
    const fewer = new Map([...weightsOf(2)].slice(0, 1))
    const more = new Map(weightsOf(2)).set('c', { shape: [1], data: new Float32Array(1) })
    for (const [step, parameters, message] of [
      [2, wrongShape, /b.bias has the shape \[2\].* it is \[4\]/],
      [3, fewer, /tensor b.bias of .* is missing/],
      [4, more, /tensor c is not in/],
    ] as const) {
      const other = await saveTrainingCheckpoint(
        run,
        trainerOf(2, async () => parameters),
        stateOf(step),
      )
      await expect(mergeCheckpoints([first, other], join(run, 'merged'))).rejects.toThrow(message)
    }
    const configs = [
      { model_type: 'a', dtype: 'float32', rope: { theta: 1 } },
      { rope: { theta: 2 }, mask_token_id: 3 },
    ]
    const [one, two] = [
      await save(5, { 'config.json': JSON.stringify(configs[0]) }),
      await save(6, { 'config.json': JSON.stringify({ ...configs[0], dtype: 'bfloat16', ...configs[1] }) }),
    ]
    await expect(mergeCheckpoints([one, two], join(run, 'merged'))).rejects.toThrow(
      /step-0000006\/config.json: differs from that of .*step-0000005: mask_token_id 3 \(there none\), rope.theta 2 \(there 1\)$/,
    )
    await expect(mergeCheckpoints([], join(run, 'merged'))).rejects.toThrow(/no checkpoint to merge/)
    await expect(mergeCheckpoints([first], run)).rejects.toThrow(/holds an input/)
    await expect(mergeCheckpoints([first], join(first, 'merged'), { force: true })).rejects.toThrow(/lies in an input/)
    await expect(mergeCheckpoints([join(run, 'nowhere')], join(run, 'merged'))).rejects.toThrow(/nowhere/)
    expect(await readdir(run)).toEqual(['checkpoints'])
  })
})
