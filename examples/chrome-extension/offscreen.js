// Holds the model. Its files are those of the extension, so none is kept a second time.
import { generate, load } from 'unmask/web'

const loading = load(chrome.runtime.getURL('model/'), {
  keep: false,
  worker: () => new Worker('worker.js', { type: 'module' }),
  runtime: { script: chrome.runtime.getURL('ort-wasm-simd-threaded.mjs') },
})
loading.catch(() => undefined)

async function write(prompt) {
  let text = ''
  for await (const { added } of generate(await loading, prompt, { maxNewTokens: 32 })) text += added
  return { text }
}

chrome.runtime.onMessage.addListener(({ kind, prompt }, _sender, answer) => {
  if (kind !== 'write') return false
  write(prompt).then(answer, (error) => answer({ error: error.message }))
  return true
})
