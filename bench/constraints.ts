// bench constraints: random JSON schemas with a model that writes what it likes: whether every text is valid, and what holding
// it to the schema costs.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { loadForInference } from '../src/checkpoint/load.ts'
import { random } from '../src/core/random.ts'
import { UserError } from '../src/core/types.ts'
import {
  type BlockOptions,
  type Constraint,
  compileConstraint,
  complete,
  createEngine,
  createVocabulary,
  type GenerationResult,
  type StrategyName,
  strategyNames,
} from '../src/decode/index.ts'
import { createStrategy } from '../src/decode/strategies/index.ts'
import { createExecutor } from '../src/runtime/onnxruntime/executor.ts'
import { randomSchema } from '../test/random-schema.ts'
import { median, report } from './measure.ts'

const PROMPT = 'Fellow-citizens of the Senate and House of Representatives: '

export const usage = `usage: npm run bench -- constraints --model DIR [flags]

Random JSON schemas, one text each, by strategy and token by token, greedily. The peer is the same model writing as many
tokens after the same prompt without a constraint. Fails where a text is not valid. Schemas whose shortest text does not fit
are left out and others drawn.

  --model DIR         a folder, file or name as load takes it
  --schemas N         texts of each strategy (default 500)
  --strategies A,B    strategies, or ar (default: all that the model can)
  --prompt TEXT       what stands before the text (default: ${JSON.stringify(PROMPT)})
  --max-new-tokens N  most tokens of a text (default 128)
  --at-a-time N       texts that are generated at the same time (default 8)
  --threads N         threads (default: the cores of the machine)
`

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      schemas: { type: 'string', default: '500' },
      strategies: { type: 'string' },
      prompt: { type: 'string', default: PROMPT },
      'max-new-tokens': { type: 'string', default: '128' },
      'at-a-time': { type: 'string', default: '8' },
      threads: { type: 'string', default: String(availableParallelism()) },
    },
  })
  if (!values.model) throw new UserError('bench constraints: --model must name a model')
  const maxNewTokens = Number(values['max-new-tokens'])
  const { model, parameters, tokenizer } = await loadForInference(values.model)
  const { mask_token_id: mask, block_size: configured } = model.config
  const blockSize = typeof configured === 'number' ? configured : 32
  const masks = typeof mask === 'number' ? { maskTokenId: mask } : {}
  const usable = strategyNames.filter(
    (name) => model.config.soft_states === true || !createStrategy(name, {}).softStates,
  )
  const strategies = values.strategies?.split(',') ?? [...('maskTokenId' in masks ? usable : []), 'ar']
  if (tokenizer.eosTokenId === undefined) throw new UserError('bench constraints: the model needs an EOS token')
  const eosTokenIds = [tokenizer.eosTokenId]
  const vocabulary = createVocabulary({
    ...{ tokens: tokenizer.tokenBytes(), eosTokenIds, size: model.dimensions.vocabSize },
  })

  const ajv = new Ajv2020({ strict: false, ownProperties: true })
  addFormats.default(ajv)
  const cases: { schema: object; constraint: Constraint }[] = []
  const compileTimes: number[] = []
  for (let seed = 0; cases.length < Number(values.schemas); seed++) {
    const schema = randomSchema(random(seed))
    const start = performance.now()
    const constraint = compileConstraint({ type: 'json_schema', schema }, vocabulary)
    try {
      constraint.begin({ maxTokens: maxNewTokens })
    } catch (error) {
      if (error instanceof UserError) continue
      throw error
    }
    compileTimes.push(performance.now() - start)
    cases.push({ schema, constraint })
  }
  report({ bench: 'constraints', case: 'compile, median', value: median(compileTimes), unit: 'ms' })

  const executor = createExecutor({ threads: Number(values.threads) })
  const engine = await createEngine(executor, model, parameters, { ...masks, eosTokenIds })
  const endless = await createEngine(executor, model, parameters, { ...masks, eosTokenIds: [] })
  const prompt = tokenizer.encode(values.prompt)

  /** All texts, some at a time; how long that took and the time spent in constraints. Without `lengths`, constrained. */
  async function generateAll(strategy: string, lengths?: readonly number[]) {
    const { generate, generateAutoregressive } = lengths === undefined ? engine : endless
    const clock = { milliseconds: 0 }
    const results: GenerationResult[] = []
    let next = 0
    const start = performance.now()
    const worker = async () => {
      while (next < cases.length) {
        const i = next++
        const options: BlockOptions =
          lengths === undefined
            ? { maxNewTokens, blockSize, constraint: timed(cases[i].constraint, clock) }
            : { maxNewTokens: lengths[i], blockSize }
        results[i] = await complete(
          strategy === 'ar'
            ? generateAutoregressive(prompt, options)
            : generate(prompt, { ...options, strategy: strategy as StrategyName }),
        )
      }
    }
    await Promise.all(Array.from({ length: Number(values['at-a-time']) }, worker))
    return { results, seconds: (performance.now() - start) / 1000, constraintMs: clock.milliseconds }
  }

  try {
    for (const strategy of strategies) {
      const held = await generateAll(strategy)
      const free = await generateAll(
        strategy,
        held.results.map(({ tokens }) => tokens),
      )
      let valid = 0
      for (const [i, { ids }] of held.results.entries()) {
        const text = tokenizer.decode(ids, { skipSpecialTokens: true })
        if (isValid(ajv, cases[i].schema, text)) valid++
        else process.stderr.write(`not valid: ${JSON.stringify(cases[i].schema)}\n${text}\n`)
      }
      const sum = (of: typeof held, field: 'tokens' | 'forwards') =>
        of.results.reduce((total, r) => total + r[field], 0)
      const compare = (label: string, unit: string, of: (run: typeof held) => number) =>
        report({
          ...{ bench: 'constraints', case: `${strategy}, ${label}`, value: of(held), unit },
          ...{ peer: 'unconstrained', peerValue: of(free) },
        })
      report({ bench: 'constraints', case: `${strategy}, valid of ${cases.length}`, value: valid, unit: 'texts' })
      compare('speed', 'tokens/s', (run) => sum(run, 'tokens') / run.seconds)
      compare('tokens per forward', 'tokens', (run) => sum(run, 'tokens') / sum(run, 'forwards'))
      compare('forwards', 'forwards/s', (run) => sum(run, 'forwards') / run.seconds)
      const perStep = held.constraintMs / sum(held, 'forwards')
      report({ bench: 'constraints', case: `${strategy}, constraint`, value: perStep, unit: 'ms/step' })
      if (valid < cases.length) process.exitCode = 1
    }
  } finally {
    await executor.dispose()
  }
}

function isValid(ajv: Ajv2020, schema: object, text: string): boolean {
  try {
    return ajv.validate(schema, JSON.parse(text))
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

/** The same constraint; the clock adds up the time in it. */
function timed(constraint: Constraint, clock: { milliseconds: number }): Constraint {
  return {
    ...constraint,
    begin(options) {
      const tracker = constraint.begin(options)
      const watch =
        <A extends unknown[], R>(call: (...args: A) => R) =>
        (...args: A): R => {
          const start = performance.now()
          const result = call(...args)
          clock.milliseconds += performance.now() - start
          return result
        }
      return {
        get length() {
          return tracker.length
        },
        open: watch(tracker.open),
        allowed: watch(tracker.allowed),
        commit: watch(tracker.commit),
        clear: watch(tracker.clear),
        suggest: watch(tracker.suggest),
        settle: watch(tracker.settle),
        spelled: watch(tracker.spelled),
        inTurns: tracker.inTurns,
      }
    },
  }
}
