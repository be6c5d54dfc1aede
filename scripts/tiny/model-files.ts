// Writes the configuration and the byte-level tokenizer of the embedded tiny model into models/tiny. Run it with
// `npx tsx scripts/tiny/model-files.ts` after changing the shape here; it knows nothing about the weights.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

const folder = join(import.meta.dirname, '..', '..', 'models', 'tiny')

/** Ids 0-255 are the bytes themselves; these follow. */
const SPECIAL_TOKENS = [
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|mask|>',
  '<|reserved_0|>',
  '<|reserved_1|>',
  '<|reserved_2|>',
  '<|reserved_3|>',
]
const id = (token: string) => 256 + SPECIAL_TOKENS.indexOf(token)

const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

/**
 * The printable character that byte-level BPE writes for a byte (Radford et al. 2019): printable Latin-1 bytes stand
 * for themselves, the other 68 take the code points from 256 on, in order.
 */
function byteCharacters(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++))
}

const config = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 256 + SPECIAL_TOKENS.length,
  hidden_size: 128,
  intermediate_size: 384,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 32,
  hidden_act: 'silu',
  max_position_embeddings: 2048,
  rope_theta: 10000,
  rope_scaling: null,
  rms_norm_eps: 1e-5,
  attention_bias: false,
  mlp_bias: false,
  attention_dropout: 0,
  tie_word_embeddings: true,
  initializer_range: 0.02,
  use_cache: true,
  pretraining_tp: 1,
  bos_token_id: null,
  eos_token_id: id('<|endoftext|>'),
  pad_token_id: id('<|endoftext|>'),
  torch_dtype: 'float32',
  prompt_template: 'none',
}

const generationConfig = {
  do_sample: false,
  max_new_tokens: 256,
  eos_token_id: [id('<|endoftext|>'), id('<|im_end|>')],
  pad_token_id: id('<|endoftext|>'),
}

const addedToken = (content: string) => ({
  id: id(content),
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
})

const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: true }

const tokenizer = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: SPECIAL_TOKENS.map(addedToken),
  normalizer: null,
  pre_tokenizer: byteLevel,
  post_processor: null,
  decoder: byteLevel,
  model: {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(byteCharacters().map((character, byte) => [character, byte])),
    merges: [],
  },
}

const tokenizerConfig = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  added_tokens_decoder: Object.fromEntries(
    SPECIAL_TOKENS.map((token) => {
      const { id: tokenId, ...rest } = addedToken(token)
      return [tokenId, rest]
    }),
  ),
  bos_token: null,
  eos_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
  mask_token: '<|mask|>',
  unk_token: null,
  add_bos_token: false,
  add_eos_token: false,
  add_prefix_space: false,
  clean_up_tokenization_spaces: false,
  model_max_length: config.max_position_embeddings,
  chat_template: CHAT_TEMPLATE,
}

const specialTokensMap = { eos_token: '<|endoftext|>', pad_token: '<|endoftext|>', mask_token: '<|mask|>' }

for (const [file, content] of Object.entries({
  'config.json': config,
  'generation_config.json': generationConfig,
  'tokenizer.json': tokenizer,
  'tokenizer_config.json': tokenizerConfig,
  'special_tokens_map.json': specialTokensMap,
})) {
  writeFileSync(join(folder, file), `${JSON.stringify(content, null, 2)}\n`)
}
