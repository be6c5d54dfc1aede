// lm-evaluation-harness (local-completions) against the server, unchanged: likelihoods and generation. Needs LM_EVAL, the
// path of an `lm_eval` of 0.4.13 with its extra `api`; without it there is nothing to run.
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunningServer } from '../../src/serve/index.ts'
import { diffusionFolder, type TestModel, testServer, tiny } from './models.ts'

const { LM_EVAL } = process.env
const run = promisify(execFile)
let folder: string
let model: TestModel
let server: RunningServer

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-lm-eval-'))
  model = await diffusionFolder()
  server = await testServer({
    models: [
      { name: 'tiny', path: tiny },
      { name: 'diffusion', path: model.path },
    ],
  })
  const words = ['abcde', 'hgfed', 'badce', 'fgabh', 'cadbe', 'efghd', 'dbeca', 'gacbf']
  const reversed = (word: string) => [...word].reverse().join('')
  const rows = words.map((word, i) => ({
    question: `reverse(${word})=`,
    choices: i % 2 === 0 ? [reversed(word), word] : [word, reversed(word)],
    answer: i % 2,
  }))
  await writeFile(join(folder, 'rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'))
  const common = `dataset_path: json
dataset_kwargs: {data_files: {test: ${join(folder, 'rows.jsonl')}}}
test_split: test
doc_to_text: "{{question}}"
target_delimiter: ""
`
  await writeFile(
    join(folder, 'choose.yaml'),
    `task: choose
${common}output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
`,
  )
  await writeFile(
    join(folder, 'write.yaml'),
    `task: write
${common}output_type: generate_until
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
`,
  )
}, 60_000)
afterAll(async () => {
  await server.close()
  await model.remove()
  await rm(folder, { recursive: true })
}, 60_000)

async function evaluate(name: string): Promise<Record<string, Record<string, number>>> {
  const output = join(folder, name)
  const settings = `model=${name},base_url=${server.url}/v1/completions,num_concurrent=4,max_retries=1,max_length=2048`
  const args = ['run', '--model', 'local-completions', '--model_args', settings, '--batch_size', '2']
  await run(LM_EVAL!, [...args, '--tasks', 'choose,write', '--include_path', folder, '--output_path', output], {
    env: { ...process.env, HF_DATASETS_OFFLINE: '1', HF_HUB_OFFLINE: '1', HF_HOME: join(folder, 'home') },
  })
  const files = await readdir(output, { recursive: true })
  const file = files.find((path) => path.endsWith('.json'))!
  return JSON.parse(await readFile(join(output, file), 'utf8')).results
}

// The embedded model was trained on this task.
test.runIf(LM_EVAL)('an autoregressive model', { timeout: 300_000 }, async () => {
  const { choose, write } = await evaluate('tiny')
  expect(choose!['acc,none']).toBe(1)
  expect(write!['exact_match,none']).toBe(1)
})

// Autoregressive weights in a diffusion model: the figures mean nothing here, that there are any does.
test.runIf(LM_EVAL)('a diffusion model', { timeout: 300_000 }, async () => {
  const { choose, write } = await evaluate('diffusion')
  expect(choose!['acc,none']).toBeGreaterThanOrEqual(0)
  expect(write!['exact_match,none']).toBeGreaterThanOrEqual(0)
})

// What the harness sends, for those who have no Python: prompts as token ids, scored with one more token.
test('echo with logprobs gives what lm-evaluation-harness reads', async () => {
  const ask = async (name: string) => {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        ...{ model: name, prompt: [[...Buffer.from('reverse(ab)=ba')], [...Buffer.from('reverse(ab)=ab')]] },
        ...{ max_tokens: 1, temperature: 0, logprobs: 1, seed: 1234, echo: true },
      }),
    })
    const { choices } = (await response.json()) as {
      choices: {
        text: string
        logprobs: { tokens: string[]; token_logprobs: (number | null)[]; top_logprobs: (object | null)[] }
      }[]
    }
    return choices
  }
  const [right, wrong] = await ask('tiny')
  expect(right!.text.startsWith('reverse(ab)=ba')).toBe(true)
  expect(right!.logprobs.token_logprobs[0]).toBe(null)
  expect(right!.logprobs.tokens.slice(0, 14).join('')).toBe('reverse(ab)=ba')
  const sum = ({ logprobs }: typeof right & object) =>
    logprobs.token_logprobs.slice(12, 14).reduce<number>((total, value) => total + value!, 0)
  expect(sum(right!)).toBeGreaterThan(-0.1)
  expect(sum(wrong!)).toBeLessThan(-1)
  const greedy = right!.logprobs.top_logprobs.slice(12, 14).map((top) => Math.max(...Object.values(top!)))
  expect(greedy).toEqual(right!.logprobs.token_logprobs.slice(12, 14))
  const [bound] = await ask('diffusion')
  expect(bound!.logprobs.token_logprobs.slice(1, 14).every((value) => value! <= 0)).toBe(true)
})
