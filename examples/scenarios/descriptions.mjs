// Writes a description of every product of a catalogue for one reader, as JSON lines:
//   node descriptions.mjs profile.json catalogue.jsonl
import { readFile } from 'node:fs/promises'
import { ask } from './client.mjs'

const [profileFile, catalogueFile] = process.argv.slice(2)
if (!catalogueFile) throw new Error('usage: node descriptions.mjs PROFILE CATALOGUE')

const profile = JSON.parse(await readFile(profileFile, 'utf8'))
const products = (await readFile(catalogueFile, 'utf8'))
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line))
const reader = Object.entries(profile).map(([key, value]) => `${key}: ${[value].flat().join(', ')}`)

const described = await Promise.all(
  products.map(async (product) => {
    const { choices } = await ask('chat/completions', {
      messages: [
        { role: 'system', content: `Describe the product for this reader. Invent nothing.\n${reader.join('\n')}` },
        { role: 'user', content: JSON.stringify(product) },
      ],
      max_tokens: 64,
    })
    return { ...product, description: choices[0].message.content }
  }),
)
for (const row of described) console.log(JSON.stringify(row))
