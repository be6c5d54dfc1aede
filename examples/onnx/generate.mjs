// node generate.mjs FOLDER PROMPT: decodes blocks with plain onnxruntime-node. FOLDER is what `unmask export --to onnx` wrote.
import { readFileSync } from 'node:fs'
import { Tokenizer } from '@huggingface/tokenizers'
import { InferenceSession, Tensor } from 'onnxruntime-node'

const [folder, prompt] = process.argv.slice(2)
const read = (file) => JSON.parse(readFileSync(`${folder}/${file}`, 'utf8'))
const config = read('config.json')
const { mask_token_id: mask, block_size: block, eos_token_id: ends, vocab_size: vocabulary } = config
const shift = config.same_token_labels === false ? 1 : 0 // 1: the position before predicts
const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'))
const session = await InferenceSession.create(`${folder}/model.onnx`)
const int64 = (values, dims) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims)
const float = (values, dims) => new Tensor('float32', Float32Array.from(values), dims)
const bias = float(new Float32Array(vocabulary), [vocabulary])
bias.data[mask] = Number.NEGATIVE_INFINITY
const ids = [...tokenizer.encode(prompt).ids]
const begin = ids.length
while (ids.length < begin + 64 && !ids.slice(begin).some((id) => ends.includes(id))) {
  const end = (Math.floor(ids.length / block) + 1) * block
  while (ids.length < end) ids.push(mask)
  while (ids.includes(mask)) {
    // Without a cache, for brevity: every step reads the whole text. generate.py shows how to keep one.
    const feeds = { cache_length: int64([0], [1]), token_bias: bias }
    for (const { name, shape } of session.inputMetadata)
      if (name.startsWith('past_')) feeds[name] = float(new Float32Array(end * shape[2]), [1, end, shape[2]])
    const all = [...ids.keys()]
    const masked = all.filter((i) => ids[i] === mask)
    const each = (values) => int64(values, [1, ids.length])
    const blocks = all.map((i) => Math.floor(i / block))
    const ends = all.map(() => 2 ** 31)
    Object.assign(feeds, {
      input_ids: each(ids),
      position_ids: each(all),
      block_ids: each(blocks),
      block_ends: each(ends),
    })
    const rows = masked.map((i) => i - shift)
    feeds.row_index = int64(rows, [rows.length])
    feeds.logit_scale = float(new Float32Array(rows.length).fill(1), [rows.length])
    const { token, confidence } = await session.run(feeds, ['token', 'confidence'])
    const best = Math.max(...confidence.data)
    for (const [j, i] of masked.entries())
      if (confidence.data[j] > 0.9 || confidence.data[j] === best) ids[i] = Number(token.data[j])
  }
}
const end = ids.findIndex((id, i) => i >= begin && ends.includes(id))
console.log(tokenizer.decode(ids.slice(begin, end === -1 ? ids.length : end)))
