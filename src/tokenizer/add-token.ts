// Adds one special token to the files of a Hugging Face tokenizer. Does not know what the token is for.
import { parseObject } from './files.ts'

/**
 * Returns `files` (name -> text) with the special token `content` at `id` in tokenizer.json and tokenizer_config.json,
 * and under `role` (for example `mask_token`) in the latter. Throws UserError naming the file that is no JSON object.
 */
export function addSpecialToken(
  files: Readonly<Record<string, string>>,
  { id, content, role }: { id: number; content: string; role?: string },
): Record<string, string> {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  const tokenizer = parseObject(files['tokenizer.json'] ?? '{}', 'tokenizer.json')
  const added = Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens : []
  const config = parseObject(files['tokenizer_config.json'] ?? '{}', 'tokenizer_config.json')
  const decoder = typeof config.added_tokens_decoder === 'object' ? config.added_tokens_decoder : {}
  const text = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
  return {
    ...files,
    'tokenizer.json': text({ ...tokenizer, added_tokens: [...added, { id, content, ...flags }] }),
    'tokenizer_config.json': text({
      ...config,
      added_tokens_decoder: { ...decoder, [id]: { content, ...flags } },
      ...(role === undefined ? {} : { [role]: content }),
    }),
  }
}
