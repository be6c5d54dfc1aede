// Answers a customer's question from a policy file, and from nothing else:
//   node customer-service.mjs policy.md "Can I send shoes back after three weeks?"
// The sections that share most words with the question go to the model. Where none does, nobody is asked.
import { readFile } from 'node:fs/promises'
import { ask } from './client.mjs'

const [file, question] = process.argv.slice(2)
if (!question) throw new Error('usage: node customer-service.mjs POLICY QUESTION')

const words = (text) => new Set((text.toLowerCase().match(/\p{L}{4,}/gu) ?? []).map((word) => word.replace(/s$/, '')))
const sections = (await readFile(file, 'utf8')).split(/^(?=## )/m).filter((part) => part.startsWith('## '))
const asked = words(question)
const ranked = sections
  .map((section) => ({ section, shared: [...words(section)].filter((word) => asked.has(word)).length }))
  .filter(({ shared }) => shared > 0)
  .sort((a, b) => b.shared - a.shared)
  .slice(0, 2)

if (ranked.length === 0) {
  console.log(
    JSON.stringify({ answer: 'Our policy says nothing about that. A colleague will write to you.', sources: [] }),
  )
} else {
  const policy = ranked.map(({ section }) => section.trim()).join('\n\n')
  const { choices } = await ask('chat/completions', {
    messages: [
      {
        role: 'system',
        content: `Answer in two sentences, only from this policy. Say so if it does not tell.\n\n${policy}`,
      },
      { role: 'user', content: question },
    ],
    max_tokens: 96,
  })
  const { content, refusal } = choices[0].message
  const sources = ranked.map(({ section }) => section.split('\n')[0].slice(3))
  console.log(JSON.stringify({ answer: content ?? refusal, sources }))
}
