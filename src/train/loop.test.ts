import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bigramRun, bigramTrainer, ruleBatch } from '../../test/train/bigram.ts'
import type { Spent } from '../account/account.ts'
import { random } from '../core/random.ts'
import { listCheckpoints, readState } from './checkpoint.ts'
import { type TrainEvent, TrainingDiverged, type TrainResult, train } from './loop.ts'
import { type MetricsRecord, readMetrics } from './metrics.ts'
import type { Trainer } from './types.ts'

let folder: string
let reference: TrainResult
let referenceRun: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-loop-'))
  referenceRun = join(folder, 'reference')
  reference = await train(bigramRun(referenceRun))
})
afterAll(() => rm(folder, { recursive: true }))

/** Everything of a run that must not depend on interruptions: the last checkpoint's bytes and the metrics. */
async function outcome(runDirectory: string) {
  const last = (await listCheckpoints(runDirectory)).at(-1)!
  const { elapsed_s: _, ...state } = await readState(last.path)
  return {
    state,
    weights: await readFile(join(last.path, 'model.safetensors')),
    moments: await readFile(join(last.path, 'optimizer.safetensors')),
    metrics: (await readMetrics(join(runDirectory, 'metrics.jsonl'))).map(timeless),
  }
}

/** A line of the metrics without what the clock and the machine say. */
function timeless({ step, tokens, block_size, stage, loss, grad_norm, lr, loss_positions, nelbo }: MetricsRecord) {
  return { step, tokens, block_size, stage, loss, grad_norm, lr, loss_positions, nelbo }
}

describe('the bigram trainer', () => {
  it('has exact gradients', async () => {
    const trainer = bigramTrainer(3)
    const weight = (await trainer.parameters()).get('bigram.weight')!
    const draws = random(3, 9)
    const start = Float32Array.from(weight.data, () => draws.normal())
    const input = { step: 4, batches: [ruleBatch(1, 0)], blockSize: 8, embeddingNoise: 0.3 }
    const at = async (data: Float32Array, learningRate: number) => {
      await trainer.fill({
        parameters: new Map([['bigram.weight', { shape: weight.shape, data }]]),
        optimizer: {
          step: 0,
          tensors: new Map(
            ['exp_avg', 'exp_avg_sq'].map((name) => [
              `${name}.bigram.weight`,
              { shape: weight.shape, data: new Float32Array(data.length) },
            ]),
          ),
        },
      })
      return trainer.step({ ...input, learningRate })
    }
    const { gradNorm } = await at(start, 0)
    // The first moment after one update is a tenth of the clipped gradient.
    const moments = (await trainer.optimizerState()).tensors.get('exp_avg.bigram.weight')!.data
    for (const i of [5, 40, 16 * 17 + 3, 16 * 17 + 8]) {
      const moved = async (by: number) =>
        (
          await at(
            Float32Array.from(start, (v, j) => (j === i ? v + by : v)),
            0,
          )
        ).loss
      const slope = ((await moved(0.01)) - (await moved(-0.01))) / 0.02
      expect(moments[i]! * 10 * Math.max(1, gradNorm)).toBeCloseTo(slope, 3)
    }
  })
})

describe('train', () => {
  it('learns, follows the schedule of block sizes and writes one line per step', async () => {
    expect(reference).toMatchObject({ status: 'completed', tokens: 15104, step: 118 })
    const lines = await readMetrics(join(referenceRun, 'metrics.jsonl'))
    expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 119 }, (_, step) => step))
    expect([...new Set(lines.slice(1).map((line) => line.block_size))]).toEqual([1, 4, 32, 8])
    const [first] = lines
    expect(Math.abs(first!.nelbo! / Math.log(17) - 1)).toBeLessThan(0.1)
    expect(first!.ar_nll).toBeCloseTo(Math.log(17), 5)
    const tokens = 2 * 2 * 2 * 13 // two batches of two rows of two documents, each with 13 maskable tokens
    expect(first!.bits_per_byte).toBeCloseTo((first!.nelbo! * tokens) / Math.LN2 / 100, 6)
    expect(lines.at(-1)!.nelbo!).toBeLessThan(first!.nelbo! - 0.5)
    expect(lines.at(-1)!.ar_nll).toBe(first!.ar_nll)
    expect(lines.at(-1)!.lr).toBeGreaterThan(0)
    for (const line of lines) {
      const due = line.step % 10 === 0 || line.step % 7 === 0 || line.step === 118
      expect(line.nelbo !== undefined).toBe(due)
      expect(line.rss_bytes).toBeGreaterThan(0)
    }
  })

  it('keeps the newest checkpoints and those of lowest NELBO', async () => {
    const validated = (await readMetrics(join(referenceRun, 'metrics.jsonl'))).filter(
      ({ step }) => (step > 0 && step % 7 === 0) || step === 118,
    )
    const ranked = validated.sort((a, b) => a.nelbo! - b.nelbo!).slice(0, 3)
    expect(reference.best.map(({ step, nelbo }) => ({ step, nelbo }))).toEqual(
      ranked.map(({ step, nelbo }) => ({ step, nelbo })),
    )
    const kept = new Set([112, 118, ...ranked.map(({ step }) => step)])
    expect((await listCheckpoints(referenceRun)).map(({ step }) => step)).toEqual([...kept].sort((a, b) => a - b))
    expect(reference.checkpoint).toBe((await listCheckpoints(referenceRun)).at(-1)!.path)
  })

  it('ends with bitwise the same weights when it is stopped by its signal and resumed', async () => {
    const runDirectory = join(folder, 'aborted')
    const statuses: string[] = []
    let spent: Spent | undefined
    for (const stopAt of [1, 20, 21, 77, Number.POSITIVE_INFINITY]) {
      const abort = new AbortController()
      const result = await train({
        ...bigramRun(runDirectory),
        resume: true,
        signal: abort.signal,
        onEvent: (event) => event.type === 'step' && event.step === stopAt && abort.abort(),
      })
      statuses.push(`${result.status} ${result.step}`)
      spent = result.spent
      expect((await listCheckpoints(runDirectory)).at(-1)!.step).toBe(result.step)
    }
    expect(statuses).toEqual(['interrupted 1', 'interrupted 20', 'interrupted 21', 'interrupted 77', 'completed 118'])
    // The account is that of all five processes.
    expect(spent).toMatchObject({ tokens: 15104, flops: reference.spent.flops })
    const { weights, moments, metrics } = await outcome(runDirectory)
    const expected = await outcome(referenceRun)
    expect(weights.equals(expected.weights)).toBe(true)
    expect(moments.equals(expected.moments)).toBe(true)
    expect(metrics).toEqual(expected.metrics)
  })

  it('ends with bitwise the same run when it is killed with SIGKILL at random moments', async () => {
    const runDirectory = join(folder, 'killed')
    const draws = random(Date.now())
    const killedAt: number[] = []
    let reached = 0
    for (let kill = 0; kill < 4 && reached < 100; kill++) {
      const target = reached + 1 + draws.integer(30)
      const child = startChild(runDirectory)
      for await (const lines of child.stdout) {
        reached = Number(String(lines).trim().split('\n').at(-1))
        if (reached >= target) child.kill('SIGKILL')
      }
      killedAt.push(reached)
    }
    const last = startChild(runDirectory)
    const [code] = await once(last, 'exit')
    expect(code).toBe(0)
    expect(await outcome(runDirectory), `killed at ${killedAt.join(', ')}`).toEqual(await outcome(referenceRun))
    expect((await readdir(join(runDirectory, 'checkpoints'))).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('resumes from an older checkpoint where the newest is damaged, and says so', async () => {
    const runDirectory = join(folder, 'damaged')
    const abort = new AbortController()
    const stop = (event: TrainEvent) => event.type === 'step' && event.step === 16 && abort.abort()
    await train({ ...bigramRun(runDirectory), signal: abort.signal, onEvent: stop })
    const newest = (await listCheckpoints(runDirectory)).at(-1)!
    expect(newest.step).toBe(16)
    await truncate(join(newest.path, 'optimizer.safetensors'), 500)

    const warnings: string[] = []
    let resumedFrom: number | undefined
    await train({
      ...bigramRun(runDirectory),
      resume: true,
      onEvent: (event) => {
        if (event.type === 'warning') warnings.push(event.message)
        if (event.type === 'start') resumedFrom = event.step
      },
    })
    expect(warnings).toEqual([expect.stringMatching(/step-0000016.*optimizer\.safetensors/s)])
    expect(resumedFrom).toBe(14)
    expect(await outcome(runDirectory)).toEqual(await outcome(referenceRun))
  })

  it('repairs metrics that a crash has torn', async () => {
    const runDirectory = join(folder, 'torn')
    const abort = new AbortController()
    const stop = (event: TrainEvent) => event.type === 'step' && event.step === 30 && abort.abort()
    await train({ ...bigramRun(runDirectory), signal: abort.signal, onEvent: stop })
    const file = join(runDirectory, 'metrics.jsonl')
    await writeFile(file, `${await readFile(file, 'utf8')}{"step":31,"tokens":3968}\n{"step":32,"tok`)
    await train({ ...bigramRun(runDirectory), resume: true })
    expect((await outcome(runDirectory)).metrics).toEqual((await outcome(referenceRun)).metrics)
  })

  it('refuses a folder that holds a run, unless it resumes it, and then with the same settings only', async () => {
    await expect(train(bigramRun(referenceRun))).rejects.toThrow(/holds checkpoints of a run already/)
    const other = { ...bigramRun(referenceRun), resume: true, seed: 12, config: { copies: 3 } }
    await expect(train(other)).rejects.toThrow(/other settings \(copies: 3, there none; seed: 12, there 11\)/)
  })

  it('does nothing when a finished run is resumed', async () => {
    const before = await outcome(referenceRun)
    const again = await train({ ...bigramRun(referenceRun), resume: true })
    expect(again).toEqual(reference)
    expect(await outcome(referenceRun)).toEqual(before)
  })

  it('stops when the loss is not a number, names step and documents, and keeps the last good checkpoint', async () => {
    const runDirectory = join(folder, 'diverged')
    const options = bigramRun(runDirectory)
    const failing: Trainer = {
      ...options.trainer,
      step: async (input) => {
        const result = await options.trainer.step(input)
        return input.step === 17 ? { ...result, gradNorm: Number.NaN } : result
      },
    }
    const error: unknown = await train({ ...options, trainer: failing }).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(TrainingDiverged)
    const { message, step, documentIds, checkpoint } = error as TrainingDiverged
    expect(step).toBe(18)
    expect(documentIds).toEqual(Array.from({ length: 8 }, (_, i) => `rule:${17 * 8 + i}`))
    expect(message).toMatch(/step 18: the gradient norm is NaN.*rule:136.*step-0000014/s)
    expect((await listCheckpoints(runDirectory)).at(-1)).toMatchObject({ step: 14, path: checkpoint })
    expect(await readState(checkpoint!)).toMatchObject({ step: 14 })
    const line = (await readMetrics(join(runDirectory, 'metrics.jsonl'))).at(-1)!
    expect(line.step).toBe(18)
    expect(line).not.toHaveProperty('grad_norm')
  })

  it('stops when training explodes', async () => {
    const options = bigramRun(join(folder, 'exploded'))
    const result = train({ ...options, learningRate: { lr: 1e4, lrWarmupRatio: 0.5 }, embeddingNoise: undefined })
    await expect(result).rejects.toThrow(/Training diverged at step \d+: the (loss|gradient norm) has exploded/)
  })

  it('keeps the baseline of the base model across resumes, and takes one that is given', async () => {
    const runDirectory = join(folder, 'baseline')
    const baseline = { nll: 1.25, stderr: 0, bitsPerByte: 0.75, bitsPerByteStderr: 0, tokens: 10, bytes: 20 }
    const abort = new AbortController()
    const onEvent = (event: TrainEvent) => event.type === 'step' && event.step === 3 && abort.abort()
    await train({ ...bigramRun(runDirectory), baseline, signal: abort.signal, onEvent })
    const result = await train({ ...bigramRun(runDirectory), resume: true })
    expect(result.baseline).toEqual(baseline)
    expect((await train({ ...bigramRun(join(folder, 'none')), baseline: null })).baseline).toBe(null)
  })

  it('trains without validation, and reports a source without tokens', async () => {
    const options = { ...bigramRun(join(folder, 'plain')), validation: [] }
    expect(await train(options)).toMatchObject({ status: 'completed', validation: null, baseline: null, best: [] })
    const empty = { ...options.source, next: async () => ({ ...(await options.source.next()), tokens: 0 }) }
    const run = train({ ...options, source: empty, runDirectory: join(folder, 'empty') })
    await expect(run).rejects.toThrow(/without any token/)
  })

  it('ends early where held-out text gets no better, gives the best checkpoint, and does so after a resume too', async () => {
    const runDirectory = join(folder, 'early')
    // Validations of steps 0, 10, 20 ...: the best is that of step 30.
    const values = [9, 5, 4, 3, 3.5, 3.4, 3.3, 3.2]
    const run = (stopAt?: number) => {
      const abort = new AbortController()
      const options = bigramRun(runDirectory)
      const { evaluate } = options.trainer
      let step = 0
      return train({
        ...options,
        ...{ saveEvery: 10, baseline: null, earlyStop: 2, resume: stopAt !== 10, signal: abort.signal },
        trainer: {
          ...options.trainer,
          evaluate: async (...args) => ({ ...(await evaluate(...args)), nll: values[Math.floor(step / 10)]! }),
        },
        onEvent(event) {
          if (event.type === 'start' || event.type === 'step') step = event.step
          if (event.type === 'step' && event.step === stopAt) abort.abort()
        },
      })
    }
    expect((await run(10)).status).toBe('interrupted')
    expect((await run(45)).status).toBe('interrupted')
    const result = await run()
    expect(result).toMatchObject({ status: 'completed', step: 50, validation: { nll: 3 } })
    expect(result.checkpoint).toMatch(/step-0000030$/)
    expect(await run()).toEqual(result)
  })

  it('writes fewer lines and validates at the end only when asked to', async () => {
    const runDirectory = join(folder, 'sparse')
    const sparse = { validateEvery: 0, saveEvery: 0, logEvery: 50, targetBlockSize: 'ar' as const, baseline: null }
    const result = await train({ ...bigramRun(runDirectory), ...sparse })
    expect((await listCheckpoints(runDirectory)).map(({ step }) => step)).toEqual([118])
    const lines = await readMetrics(join(runDirectory, 'metrics.jsonl'))
    expect(lines.map(({ step, nelbo }) => [step, nelbo !== undefined])).toEqual([
      [0, true],
      [50, false],
      [100, false],
      [118, true],
    ])
    expect(result.validation!.nll).toBeLessThan(lines[0]!.nelbo!)
  })

  it('names the setting that is out of range', async () => {
    const options = bigramRun(join(folder, 'settings'))
    await expect(train({ ...options, accumulation: 0 })).rejects.toThrow(/accumulation is 0/)
    await expect(train({ ...options, saveEvery: 0.5 })).rejects.toThrow(/save_steps is 0.5/)
    await expect(train({ ...options, keepBest: -1 })).rejects.toThrow(/keep_best is -1/)
    await expect(train({ ...options, schedule: [] })).rejects.toThrow(/schedule of block sizes is empty/)
    const silent = [{ ...ruleBatch(2, 0), bytes: 0 }]
    await expect(train({ ...options, validation: silent })).rejects.toThrow(/hold no text/)
    await expect(train({ ...options, learningRate: { lr: -1 } })).rejects.toThrow(/lr is -1/)
  })
})

function startChild(runDirectory: string) {
  const script = fileURLToPath(new URL('../../test/train/run-bigram.ts', import.meta.url))
  return spawn(process.execPath, ['--import', 'tsx', script, runDirectory], { stdio: ['ignore', 'pipe', 'inherit'] })
}
