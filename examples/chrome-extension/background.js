// A service worker can have no worker of its own, which the model needs: a document that nobody sees holds it.
let opening
async function openDocument() {
  if (await chrome.offscreen.hasDocument()) return
  opening ??= chrome.offscreen
    .createDocument({ url: 'offscreen.html', reasons: ['WORKERS'], justification: 'runs the language model' })
    .finally(() => (opening = undefined))
  await opening
}

chrome.runtime.onMessage.addListener(({ kind, prompt }, _sender, answer) => {
  if (kind !== 'complete') return false
  openDocument()
    .then(() => chrome.runtime.sendMessage({ kind: 'write', prompt }))
    .then(answer, (error) => answer({ error: error.message }))
  return true
})
