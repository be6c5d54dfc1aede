import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { loadTokenizer } from '../tokenizer/index.ts'
import { promptIds, promptStyle, textIds, withPromptStyle } from './prompt.ts'

const [, gpt2] = readFileSync(new URL('../tokenizer/fixtures/tokenizers.jsonl', import.meta.url), 'utf8').split('\n')

function loaded(config: Record<string, unknown> = {}, chat_template?: string) {
  const tokenizer = loadTokenizer({
    'tokenizer.json': JSON.stringify(JSON.parse(gpt2).tokenizer),
    'tokenizer_config.json': JSON.stringify({ eos_token: '<end>', chat_template }),
  })
  return { tokenizer, model: { config: { model_type: 'llama', ...config } } } as unknown as Parameters<
    typeof promptIds
  >[1]
}
const template =
  '{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}A:{% endif %}'
const chat = [
  { role: 'user', content: 'one' },
  { role: 'assistant', content: 'two' },
  { role: 'user', content: 'the <end>' },
]

test('prompts are written as the model records, else by the chat template that there is', () => {
  expect(promptStyle(loaded())).toEqual({ template: 'none', separator: '' })
  expect(promptStyle(loaded({}, template))).toEqual({ template: 'chat', separator: '' })
  const recorded = withPromptStyle({ model_type: 'llama' }, { template: 'none', separator: '=' })
  expect(promptStyle(loaded(recorded, template))).toEqual({ template: 'none', separator: '=' })
  expect(promptStyle(loaded(recorded, template), { template: 'chat', separator: '' })).toEqual({
    ...{ template: 'chat', separator: '' },
  })
  expect(withPromptStyle(recorded as never, { template: 'chat', separator: '' })).toEqual({
    ...{ model_type: 'llama', prompt_template: 'chat' },
  })
  expect(() => promptStyle(loaded({ prompt_template: 'jinja' }))).toThrow('prompt_template is "jinja"')
  expect(() => promptStyle(loaded({ prompt_separator: 3 }))).toThrow('prompt_separator is 3')
})

test('a model of plain prompts gets the last question of a chat, as it is', () => {
  const model = loaded({ prompt_template: 'none', prompt_separator: '=' }, template)
  const { tokenizer } = model
  expect(promptIds(chat, model)).toEqual(tokenizer.encode('the <end>=', { special: 'text' }))
  expect(promptIds('the', model)).toEqual(tokenizer.encode('the='))
  expect(() => promptIds([{ role: 'system', content: 'x' }], model)).toThrow('needs a message of a user')
})

test('special tokens are those of the template alone', () => {
  const model = loaded({}, template)
  const { tokenizer } = model
  const ids = promptIds(chat, model, { answer: '<m>' })
  const special = ids.filter((id) => tokenizer.specialTokenIds.includes(id)).map((id) => tokenizer.idToToken(id))
  expect(special).toEqual(['<bos>', '<end>', '<bos>', '<end>', '<bos>', '<end>', '<m>'])
  expect(tokenizer.decode(ids)).toBe(`<bos>user: one<end><bos>assistant: two<end><bos>user: the <end><end>A:<m>`)
})

test('a text to continue names special tokens only where that is asked for', () => {
  const model = loaded({ prompt_separator: '=' })
  const end = model.tokenizer.tokenToId('<end>')
  expect(textIds('a<end>', model)).not.toContain(end)
  expect(textIds('a<end>', model, 'tokens').at(-1)).toBe(end)
  expect(promptIds('a<end>', model, { special: 'tokens' }).at(-2)).toBe(end)
  expect(() => promptIds('a', loaded({}, template), { special: 'tokens' })).toThrow('plain prompt only')
})
