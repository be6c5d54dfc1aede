// Chats of three turns for the embedded model, each of which asks about the answer before it: what turns that share a block are
// measured with (docs/post-training.md).
//   npx tsx scripts/tiny/chats.ts MODEL [FOLDER]        writes train.jsonl, validation.jsonl, test.jsonl and model/, which is
//                                                       MODEL with a chat template (default folder: runs/tiny/chats)
//   npx tsx scripts/tiny/chats.ts --score MODEL [FOLDER]  answers each turn of test.jsonl behind the right ones before it
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../../src/core/random.ts'
import { UserError } from '../../src/core/types.ts'
import { writeJsonl } from '../../src/data/synthetic.ts'
import { openModel } from '../../src/index.ts'
import { reverse } from '../../src/tasks/reverse.ts'
import { sort } from '../../src/tasks/sort.ts'
import { written } from '../../src/text/assemble.ts'
import type { ChatMessage } from '../../src/tokenizer/types.ts'

const TURNS = 3
const ROWS = { train: 20_000, validation: 200, test: 200 }
const TEMPLATE =
  "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { score: { type: 'boolean', default: false }, threads: { type: 'string', default: '1' } },
})

try {
  const [model, folder = join('runs', 'tiny', 'chats')] = positionals
  if (model === undefined) throw new UserError('name a model')
  if (values.score) await score(model, join(folder, 'test.jsonl'))
  else await write(model, folder)
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(error.message)
  process.exitCode = 1
}

/** The same chat for the same seed and index. Reversed and sorted texts are asked about in turn, so that answers are quoted. */
function chat(seed: number, index: number): { messages: ChatMessage[] } {
  const draw = random(seed, index)
  const task = index % 2 === 0 ? reverse : sort
  const name = index % 2 === 0 ? 'reverse' : 'sort'
  const messages: ChatMessage[] = []
  for (let turn = 0, prompt = task.prompt(draw); turn < TURNS; turn++) {
    const answer = task.solve(prompt)!
    messages.push({ role: 'user', content: prompt }, { role: 'assistant', content: answer })
    prompt = `${name}(${answer})=`
  }
  return { messages }
}

async function write(model: string, folder: string): Promise<void> {
  if (existsSync(join(folder, 'model'))) throw new UserError(`${folder}/model is there already: name another folder`)
  mkdirSync(folder, { recursive: true })
  for (const [seed, [name, rows]] of Object.entries(ROWS).entries())
    await writeJsonl(
      join(folder, `${name}.jsonl`),
      Array.from({ length: rows }, (_, i) => chat(seed + 1, i)),
    )
  await cp(model, join(folder, 'model'), { recursive: true })
  change(join(folder, 'model', 'tokenizer_config.json'), { chat_template: TEMPLATE })
  change(join(folder, 'model', 'config.json'), { prompt_template: 'chat' })
}

function change(file: string, keys: Record<string, unknown>): void {
  const before = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
  writeFileSync(file, `${JSON.stringify({ ...before, ...keys }, null, 2)}\n`)
}

/** Prints, for each turn, right answers, rows and tokens per forward as JSON lines. */
async function score(source: string, file: string): Promise<void> {
  const model = await openModel(source, { threads: Number(values.threads) })
  const chats = readFileSync(file, 'utf8').trim().split('\n')
  for (let turn = 0; turn < TURNS; turn++) {
    let [right, tokens, forwards] = [0, 0, 0]
    for (const line of chats) {
      const { messages } = JSON.parse(line) as { messages: ChatMessage[] }
      const asked = 2 * turn + 1
      const result = await written(model.chat(messages.slice(0, asked), { maxNewTokens: 32 }))
      if (result.text === messages[asked]!.content) right++
      tokens += result.ids.length
      forwards += result.forwards
    }
    console.log(JSON.stringify({ model: source, turn: turn + 1, right, rows: chats.length, tpf: tokens / forwards }))
  }
  await model.dispose()
}
