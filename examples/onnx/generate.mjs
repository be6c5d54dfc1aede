// node generate.mjs FOLDER PROMPT: decodes blocks with plain onnxruntime-node. FOLDER is what `unmask export --to onnx` wrote.
import { readFileSync } from 'node:fs'
import { Tokenizer } from '@huggingface/tokenizers'
import { InferenceSession, Tensor } from 'onnxruntime-node'

const [folder, prompt] = process.argv.slice(2)
const read = (file) => JSON.parse(readFileSync(`${folder}/${file}`, 'utf8'))
const config = read('config.json')
const { mask_token_id: mask, block_size: block, eos_token_id: eos, vocab_size: vocabulary } = config
const shift = config.same_token_labels === false ? 1 : 0 // 1: the position before predicts
const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'))
const session = await InferenceSession.create(`${folder}/model.onnx`)
const int64 = (values, dims) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims)
const float = (values, dims) => new Tensor('float32', Float32Array.from(values), dims)
const bias = float(new Float32Array(vocabulary), [vocabulary])
bias.data[mask] = Number.NEGATIVE_INFINITY
const ids = [...tokenizer.encode(prompt).ids]
const begin = ids.length
while (ids.length < begin + 64 && !ids.slice(begin).includes(eos)) {
  const end = (Math.floor(ids.length / block) + 1) * block
  while (ids.length < end) ids.push(mask)
  while (ids.includes(mask)) {
    // Without a cache, for brevity: every step reads the whole text. generate.py shows how to keep one.
    const feeds = { block_size: int64([block], []), cache_length: int64([0], [1]), logit_scale: float([1], []) }
    for (const { name, shape } of session.inputMetadata)
      if (name.startsWith('past_')) feeds[name] = float([], [1, shape[1], 0, shape[3]])
    const all = [...ids.keys()]
    const masked = all.filter((i) => ids[i] === mask)
    Object.assign(feeds, { input_ids: int64(ids, [1, ids.length]), position_ids: int64(all, [1, ids.length]) })
    Object.assign(feeds, { document_ids: int64(all.fill(0), [1, ids.length]), token_bias: bias })
    feeds.row_index = int64(
      masked.map((i) => i - shift),
      [masked.length],
    )
    const { token, confidence } = await session.run(feeds, ['token', 'confidence'])
    const best = Math.max(...confidence.data)
    for (const [j, i] of masked.entries())
      if (confidence.data[j] > 0.9 || confidence.data[j] === best) ids[i] = Number(token.data[j])
  }
}
const answer = ids.slice(begin)
console.log(tokenizer.decode(answer.includes(eos) ? answer.slice(0, answer.indexOf(eos)) : answer))
