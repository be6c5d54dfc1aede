// Models for the tests of the server: the embedded one, also with a mask token and with a chat template that knows tools.
import { copyFile, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseConfig, type RunningServer, type ServeConfigInput } from '../../src/serve/index.ts'
import { fromBuild } from '../built.ts'

/** That of the build: its processes and threads start in half the time. */
export const { startServer } = (await fromBuild('serve/index')) as typeof import('../../src/serve/index.ts')

export const tiny = fileURLToPath(new URL('../../models/tiny', import.meta.url))

/** The chat format of Qwen and Hermes in short. */
export const toolTemplate = `{%- if tools %}<|im_start|>system
{%- for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

export interface TestModel {
  path: string
  remove(): Promise<void>
}

/** A copy of the embedded model with other settings. Its weights are those of the autoregressive one. */
export async function modelFolder(
  config: Record<string, unknown>,
  tokenizer: Record<string, unknown> = {},
): Promise<TestModel> {
  const path = await mkdtemp(join(tmpdir(), 'unmask-serve-'))
  const change = async (file: string, changes: Record<string, unknown>) => {
    const value = JSON.parse(await readFile(join(tiny, file), 'utf8'))
    await writeFile(join(path, file), JSON.stringify({ ...value, ...changes }))
  }
  // With a chat template of its own it is used as a model of chats.
  const prompts = 'chat_template' in tokenizer ? { prompt_template: 'chat' } : {}
  await change('config.json', { ...prompts, ...config })
  await change('tokenizer_config.json', tokenizer)
  for (const file of ['tokenizer.json', 'special_tokens_map.json', 'generation_config.json'])
    await copyFile(join(tiny, file), join(path, file))
  await symlink(join(tiny, 'model.safetensors'), join(path, 'model.safetensors'))
  return { path, remove: () => rm(path, { recursive: true }) }
}

/** Block diffusion with the weights of the embedded model: what it writes is of no use, but always the same. */
export const diffusionFolder = (): Promise<TestModel> =>
  modelFolder({ mask_token_id: 259, block_size: 8, same_token_labels: false }, { chat_template: toolTemplate })

/** A server on a free port of 127.0.0.1. */
export function testServer(
  settings: Partial<ServeConfigInput> & Pick<ServeConfigInput, 'models'>,
): Promise<RunningServer> {
  return startServer(parseConfig({ port: 0, threads: 1, log_level: 'silent', ...settings }))
}

/** Posts JSON, or any body with any headers. */
export function post(
  url: string,
  body: unknown,
  { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal ? { signal } : {}),
  })
}

/** A value of /metrics. */
export async function metric(url: string, line: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const found = text.split('\n').find((candidate) => candidate.startsWith(`${line} `))
  return Number(found?.split(' ').at(-1) ?? 0)
}

/** Waits until something holds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 10))
}
