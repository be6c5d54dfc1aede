// A mixture of experts from random weights to a diffusion model that generates: trained autoregressively, converted through
// the command line with frozen routers and moving biases.
import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { load, loadForInference } from '../src/checkpoint/load.ts'
import { convert } from '../src/jobs/convert.ts'
import { tinyModel } from '../src/jobs/quickstart.ts'
import { taskRows } from '../src/tasks/index.ts'
import { generate } from '../src/text/open.ts'
import type { MetricsRecord } from '../src/train/metrics.ts'
import { command } from './built.ts'

/** Ling's architecture, with a layer for multi-token prediction that no checkpoint of these tests has. */
const config = {
  architectures: ['BailingMoeV2ForCausalLM'],
  auto_map: { AutoConfig: 'configuration_bailing_moe_v2.BailingMoeV2Config' },
  model_type: 'bailing_moe_v2',
  vocab_size: 264,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  num_experts: 8,
  num_experts_per_tok: 2,
  num_shared_experts: 1,
  moe_intermediate_size: 16,
  first_k_dense_replace: 1,
  n_group: 2,
  topk_group: 1,
  routed_scaling_factor: 2.5,
  score_function: 'sigmoid',
  moe_router_enable_expert_bias: true,
  norm_topk_prob: true,
  rope_theta: 10000,
  partial_rotary_factor: 0.5,
  max_position_embeddings: 256,
  eos_token_id: 256,
  pad_token_id: 256,
  num_nextn_predict_layers: 1,
}

let folder: string
const at = (...names: string[]) => join(folder, ...names)
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unmask-moe-'))
  const rows = [...taskRows({ seed: 3, count: 300 })].map(({ prompt, completion }) => ({ prompt, completion }))
  await writeFile(at('rows.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  await mkdir(at('base'))
  await writeFile(at('base', 'config.json'), JSON.stringify(config))
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    await copyFile(join(tinyModel, name), at('base', name))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const metricsOf = async (run: string): Promise<MetricsRecord[]> =>
  (await readFile(at(run, 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as MetricsRecord)

it('trains, converts and generates', async () => {
  const dropped: (string | undefined)[] = []
  const trained = await convert({
    recipe: {
      model: at('base'),
      init: 'random',
      objective: 'ar',
      output_dir: at('ar'),
      threads: 1,
      data: { train_path: at('rows.jsonl'), template: 'none', max_seq_len: 64, validation_tokens: 300 },
      train: { total_tokens: 2000, micro_batch_size: 4, global_batch_size: 8, eval_steps: 0, save_steps: 0 },
      moe: { router_aux_loss_coef: 0.01 },
    },
    skipDecoding: true,
    onEvent: (event) => {
      if (event.type === 'model') dropped.push(event.dropped)
    },
  })
  expect(dropped).toEqual(['layers for multi-token prediction (num_nextn_predict_layers: 1)'])
  const base = await load(trained.model!)
  expect(base.model.config).toMatchObject({ model_type: 'bailing_moe_v2', architectures: config.architectures })
  for (const { router_aux_loss: balance } of (await metricsOf('ar')).slice(1)) expect(balance).toBeGreaterThan(1)

  const recipe = {
    'train-path': at('rows.jsonl'),
    template: 'none',
    'max-seq-len': 64,
    'validation-tokens': 300,
    'total-tokens': 2000,
    'micro-batch-size': 4,
    'global-batch-size': 8,
    'eval-steps': 0,
    'save-steps': 0,
    'block-size': 8,
    schedule: 'constant',
    router: 'frozen',
    'router-bias-update-rate': 0.001,
    samples: 1,
    prompts: 1,
    'max-new-tokens': 8,
    thresholds: 0.9,
    threads: 1,
  }
  const flags = Object.entries(recipe).flatMap(([name, value]) => [`--${name}`, String(value)])
  const args = [command, 'convert', '--model', trained.model!]
  const run = await promisify(execFile)(process.execPath, [...args, '--output-dir', at('converted'), ...flags])
  expect(run.stderr).toMatch(/ar: [\d.]+k parameters \([\d.]+k active\), mask token/)

  const converted = await load(at('converted', 'model'))
  const written = JSON.parse(await readFile(at('converted', 'model', 'config.json'), 'utf8'))
  expect(written).toMatchObject({ model_type: 'llada2_moe', architectures: ['LLaDA2MoeModelLM'], block_size: 8 })
  expect(Object.keys(written)).not.toContain('auto_map')
  expect(Object.keys(written)).not.toContain('num_nextn_predict_layers')

  for (const { router, bias } of converted.model.mixtures) {
    expect(converted.parameters.get(router)).toEqual(base.parameters.get(router))
    expect(converted.parameters.get(bias!)).not.toEqual(base.parameters.get(bias!))
  }
  const [first, ...steps] = await metricsOf('converted')
  expect(first.expert_load).toBeUndefined()
  expect(steps.length).toBeGreaterThan(1)
  for (const { expert_load, expert_load_max: max, expert_load_entropy: entropy } of steps) {
    const load = expert_load as number[][]
    expect(load.map((layer) => layer.length)).toEqual([8, 8])
    for (const layer of load) expect(layer.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 2)
    for (const layers of [max, entropy]) expect(layers).toEqual([expect.any(Number), expect.any(Number)])
  }

  const model = await loadForInference(at('converted', 'model'))
  // So little trained, it may end the text at once.
  let denoised = 0
  for await (const _ of generate(model, 'reverse(stone)=', { template: 'none', maxNewTokens: 16, threads: 1 }))
    denoised++
  expect(denoised).toBeGreaterThan(0)
})
