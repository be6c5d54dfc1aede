// Which tokens end a text, as llama.cpp reads them from a GGUF file: keys of its metadata, and names of tokens that mean an end in
// some family of models. Knows nothing about tensors.
import type { GgufMetadata } from './gguf.ts'
import { tokenId } from './gguf-tokenizer.ts'

const keys = ['eos', 'eot', 'eom', 'fim_pad', 'fim_rep', 'fim_sep'] as const

/** What ends a text, a turn or a message under these names (llama.cpp, `llama_vocab::impl::load`, special_eog_ids). */
const endNames = [
  ...[
    '<|endoftext|>',
    '<|end_of_text|>',
    '</s>',
    '<eos>',
    '[EOS]',
    '<EOT>',
    '_<EOT>',
    '[EOT]',
    '<｜end▁of▁sentence｜>',
  ],
  ...['<|eot_id|>', '<|eom_id|>', '<|im_end|>', '<|end|>', '<end_of_turn>', '<turn|>', '<end_of_utterance>'],
  ...['<|return|>', '<|call|>', '<|calls|>', '<|flush|>', '<|tool_response>'],
]

/** Names of the tokens for filling in the middle that end a text, too; the first of each that a vocabulary has. */
const fillNames = [
  ['<|fim_pad|>', '<fim-pad>', '<PAD>'],
  ['<|fim_repo|>', '<|repo_name|>', '<fim-repo>', '<REPO>'],
  ['<|file_sep|>'],
]

/** Ids of the tokens that end a text: that of `eos_token_id` first, then those of other keys, then by name. */
export function ggufEndTokens(metadata: GgufMetadata): number[] {
  const tokens = metadata.get('tokenizer.ggml.tokens')
  const ids = new Map((Array.isArray(tokens) ? tokens : []).map((token, id) => [token, id]))
  const ends = new Set<number>()
  for (const key of keys) {
    const id = tokenId(metadata, key)
    if (id !== undefined && ids.size > 0) ends.add(id)
  }
  for (const name of [...endNames, ...fillNames.flatMap((names) => names.find((name) => ids.has(name)) ?? [])]) {
    const id = ids.get(name)
    if (id !== undefined) ends.add(id)
  }
  const among = (...names: string[]) => names.every((name) => ends.has(ids.get(name) ?? -1))
  // Where calls and returns end a message, this one only ends a part of it.
  if (among('<|return|>', '<|call|>') || among('<|calls|>', '<|flush|>') || among('<|call|>', '<|flush|>'))
    ends.delete(ids.get('<|end|>') ?? -1)
  if (among('<|tool_response>')) ends.delete(ids.get('</s>') ?? -1)
  return [...ends]
}
