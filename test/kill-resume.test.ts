// A conversion through the command line, killed with SIGKILL at random steps and resumed, ends with the same bytes.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { random } from '../src/core/random.ts'
import { tinyModel } from '../src/jobs/quickstart.ts'
import { taskRows } from '../src/tasks/index.ts'
import { command } from './built.ts'

const KILLS = 5
const STEPS = 40

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-kill-'))
  const rows = [...taskRows({ seed: 3, count: 600 })].map(({ prompt, completion }) => ({ prompt, completion }))
  await writeFile(join(folder, 'data.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

function start(run: string, resume: boolean): ChildProcess {
  const flags = {
    model: tinyModel,
    'train-path': join(folder, 'data.jsonl'),
    'output-dir': join(folder, run),
    template: 'none',
    'max-seq-len': 64,
    'micro-batch-size': 2,
    'global-batch-size': 4,
    'total-tokens': STEPS * 250,
    'block-size': 8,
    schedule: '1:30%,8:70%',
    copies: 2,
    'save-steps': 3,
    'eval-steps': 10,
    'validation-tokens': 500,
    prompts: 0,
    threads: 1,
  }
  const given = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)])
  const script = [command, 'convert', '--complementary-masking', ...given]
  return spawn(process.execPath, resume ? [...script, '--resume'] : script, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Runs to the end, or kills after the step line of `killAfter`. Continues a run that has begun. */
function finish(run: string, killAfter?: number): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const child = start(run, existsSync(join(folder, run)))
    let text = ''
    child.stderr?.on('data', (chunk) => {
      text += chunk
    })
    const watch = setInterval(async () => {
      const lines = await readFile(join(folder, run, 'metrics.jsonl'), 'utf8').catch(() => '')
      const last = lines.trim().split('\n').at(-1) ?? ''
      if (killAfter !== undefined && Number(/"step":(\d+)/.exec(last)?.[1] ?? 0) >= killAfter) child.kill('SIGKILL')
    }, 5)
    child.on('error', reject)
    child.on('close', (code) => {
      clearInterval(watch)
      if (killAfter === undefined && code !== 0) reject(new Error(text))
      else resolve(code)
    })
  })
}

it('five kills at random steps', { timeout: 400_000 }, async () => {
  await finish('whole')
  const draw = random(Date.now() % 2 ** 31)
  const steps = Array.from({ length: KILLS }, () => 1 + draw.integer(STEPS - 5)).sort((a, b) => a - b)
  for (const step of steps) expect(await finish('killed', step), `kills at ${steps}`).toBe(null)
  await finish('killed')
  for (const file of ['model/model.safetensors', 'model/config.json']) {
    const [whole, killed] = await Promise.all(['whole', 'killed'].map((run) => readFile(join(folder, run, file))))
    expect(whole.equals(killed), `${file} after kills at ${steps}`).toBe(true)
  }
})
