// eval suite and eval compare as a user runs them: their flags are their own, and the exit code says what came out.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { command } from '../../../test/built.ts'
import type { SuiteRun } from '../../eval/suite/records.ts'
import { exitCodes } from '../exit-codes.ts'

const root = join(import.meta.dirname, '../../..')
const folder = mkdtempSync(join(tmpdir(), 'unmask-suite-'))
afterAll(() => rmSync(folder, { recursive: true }))

const unmask = (...args: string[]) =>
  spawnSync(process.execPath, [command, 'eval', ...args], { cwd: root, encoding: 'utf8' })

it('measures, compares, and tells a regression by the exit code', () => {
  const out = join(folder, 'run')
  const flags = '--base tiny --tasks sort --task-rows 12 --thresholds 0.5,0.9 --json'
  const measured = unmask('suite', 'tiny', ...flags.split(' '), '--output-dir', out)
  expect(measured).toMatchObject({ status: 0 })
  expect(JSON.parse(measured.stdout)).toMatchObject({
    run: { command: expect.stringContaining('eval suite tiny') },
    model: { tasks: [{ name: 'sort', conditions: [{ rows: 12, scores: [{ metric: 'right' }] }] }] },
    base: { tasks: [{ name: 'sort' }] },
    comparisons: { regressions: 0 },
  })

  // The same answers, spoiled.
  const run = JSON.parse(readFileSync(join(out, 'model.json'), 'utf8')) as SuiteRun
  for (const { answers } of run.tasks[0]!.conditions[0]!.rows) for (const answer of answers) answer.scores.right = 0
  const spoiled = join(folder, 'spoiled.json')
  writeFileSync(spoiled, JSON.stringify(run))
  const worse = unmask('compare', out, spoiled)
  expect(worse).toMatchObject({ status: exitCodes.regression, stdout: expect.stringContaining('sort (right): worse') })
  expect(unmask('compare', spoiled, out, '--adapter', 'x')).toMatchObject({
    ...{ status: 2, stderr: expect.stringContaining('--adapter: unmask eval compare has no such flag') },
  })
}, 120_000)
