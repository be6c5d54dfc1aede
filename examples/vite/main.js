import { generate, load } from 'unmask/web'

const form = document.querySelector('form')
const status = document.querySelector('p')
const output = document.querySelector('output')

const model = await load('model/', { onProgress: ({ phase }) => (status.textContent = phase) })
status.textContent = `${model.name}: ${model.backend.device}, ${model.backend.threads} threads`
form.querySelector('button').disabled = false

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  output.textContent = ''
  for await (const { added } of generate(model, form.prompt.value, { maxNewTokens: 64 })) output.append(added)
})
