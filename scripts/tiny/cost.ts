// What the weights of the base are worth: three seeds of tiny-convert.yaml and, from random weights, of tiny-scratch.yaml on more
// tokens, then `unmask report --against`. A stopped run goes on. Make the data first: npx tsx scripts/tiny/corpus.ts
// Usage: npx tsx scripts/tiny/cost.ts [FACTOR]; FACTOR: tokens from random weights, as a multiple of the recipe's (default 5).
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { exists } from '../../src/checkpoint/file.ts'
import { convert } from '../../src/jobs/convert.ts'
import { compareCosts } from '../../src/jobs/cost-comparison.ts'
import { parseRecipe, type RecipeInput } from '../../src/jobs/recipe.ts'

const factor = Number(process.argv[2] ?? 5)
const seeds = [1, 2, 3]

async function train(name: 'convert' | 'scratch', seed: number, times: number): Promise<string> {
  const recipe = parseRecipe(parse(readFileSync(`recipes/tiny-${name}.yaml`, 'utf8')) as RecipeInput)
  const output_dir = `runs/tiny/cost/${name}-${seed}`
  const { total_tokens: tokens } = recipe.train
  await convert({
    recipe: { ...recipe, output_dir, train: { ...recipe.train, seed, total_tokens: Math.round(times * tokens) } },
    resume: await exists(`${output_dir}/recipe.yaml`),
    onEvent: (event) =>
      event.type === 'validation' && console.error(`${output_dir} ${event.step} ${event.validation.nll}`),
  })
  return output_dir
}

const [converted, scratch]: [string[], string[]] = [[], []]
for (const seed of seeds) {
  converted.push(await train('convert', seed, 1))
  scratch.push(await train('scratch', seed, factor))
}
console.log(JSON.stringify(await compareCosts(converted, scratch), null, 2))
