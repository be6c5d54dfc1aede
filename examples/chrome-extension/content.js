// In every page: Ctrl+Space in a text field continues what stands before the cursor.
document.addEventListener('keydown', async (event) => {
  const field = event.target
  if (!event.ctrlKey || event.code !== 'Space') return
  if (!(field instanceof HTMLTextAreaElement || (field instanceof HTMLInputElement && field.type === 'text'))) return
  event.preventDefault()
  const { selectionStart: at, value } = field
  const { text, error } = await chrome.runtime.sendMessage({ kind: 'complete', prompt: value.slice(0, at) })
  if (error) return console.error(`unmask: ${error}`)
  // Not where something was typed meanwhile.
  if (field.value === value) field.setRangeText(text, at, at, 'end')
})
