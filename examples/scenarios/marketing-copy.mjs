// Writes variants of a text about a product and says how different they are:
//   node marketing-copy.mjs "a bottle that keeps tea hot for a day" 5
import { ask } from './client.mjs'
import { distinct, selfBleu } from './diversity.mjs'

const [product, count = '5'] = process.argv.slice(2)
if (!product) throw new Error('usage: node marketing-copy.mjs PRODUCT [VARIANTS]')

const { choices } = await ask('chat/completions', {
  messages: [{ role: 'user', content: `Write one advertising sentence about ${product}.` }],
  n: Number(count),
  temperature: 1,
  top_p: 0.95,
  seed: 1,
  max_tokens: 48,
})
const texts = choices.map(({ message }) => message.content ?? '')
console.log(
  JSON.stringify(
    { texts, distinct1: distinct(texts, 1), distinct2: distinct(texts, 2), selfBleu: selfBleu(texts) },
    null,
    2,
  ),
)
