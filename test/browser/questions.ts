// What is asked of a model in the browser and on Node, which must answer the same: all modes and strategies, sampling, constraints,
// gaps and corrections.
import type { DecodingSettings } from '../../src/decode/index.ts'
import { strategyNames } from '../../src/decode/index.ts'
import { TASK_NAMES, taskRow } from '../../src/tasks/index.ts'
import type { OpenModel, WriteSettings } from '../../src/text/model.ts'

/** Autoregressive, block diffusion, or of objective hybrid. */
export type Kind = 'ar' | 'diffusion' | 'hybrid'

export type WebQuestion =
  | { kind: 'generate'; prompt: string; settings: WriteSettings }
  | { kind: 'infill' | 'rewrite'; text: string; settings: DecodingSettings }

/** Held-out prompts of the tasks of the embedded model, and beginnings of speeches. */
export function prompts(count: number): string[] {
  const speech = 'My fellow citizens, the people of the United States have always been ready to defend their liberty. '
  return Array.from({ length: count }, (_, i) => {
    if (i % 5 === 4) return speech.slice(0, 10 + ((7 * i) % (speech.length - 10)))
    const task = TASK_NAMES[i % TASK_NAMES.length]!
    return taskRow(task, 7, i, 'test').prompt
  })
}

const constraints = [
  { type: 'regex', pattern: '[0-9]{3,6}( and [a-z]{2,5})?' },
  {
    type: 'json_schema',
    schema: {
      type: 'object',
      properties: { name: { type: 'string', maxLength: 8 }, count: { type: 'integer', minimum: 0, maximum: 99 } },
      required: ['name', 'count'],
      additionalProperties: false,
    },
  },
] as const

/** Ways of answering a prompt, by what they are called. */
export function ways(kind: Kind): Record<string, WriteSettings> {
  const sampled: WriteSettings = { temperature: 0.8, topP: 0.9, seed: 11 }
  const [regex, json] = constraints
  const leftToRight: Record<string, WriteSettings> = {
    ar: { mode: 'ar' },
    'ar, sampled': { mode: 'ar', ...sampled },
    'ar, regex': { mode: 'ar', constraint: regex },
    'ar, JSON': { mode: 'ar', constraint: json },
  }
  const drafted: Record<string, WriteSettings> = {
    speculative: { mode: 'speculative' },
    'speculative, sampled': { mode: 'speculative', ...sampled },
    'speculative, JSON': { mode: 'speculative', constraint: json },
  }
  if (kind === 'ar') return { ...leftToRight, ...drafted }
  if (kind === 'hybrid')
    return { ...leftToRight, ...drafted, 'drafts unverified': { mode: 'diffusion', threshold: 0.6 } }
  // `soft` is for models that were trained with soft states.
  const strategies = strategyNames.filter((name) => name !== 'soft')
  const inBlocks: [string, WriteSettings][] = strategies.map((strategy) => [strategy, { strategy }])
  return {
    ...leftToRight,
    ...Object.fromEntries(inBlocks),
    'two blocks at a time': { strategy: 'threshold', threshold: 0.5, bufferSize: 2 },
    'blocks, sampled': { strategy: 'threshold', ...sampled },
    'blocks, regex': { constraint: regex },
    'blocks, JSON': { constraint: json },
  }
}

/** Each prompt in each way, and the text around the gaps that a model of this kind fills. */
export function questions(kind: Kind, count: number, maxNewTokens = 24): WebQuestion[] {
  const each = Object.values(ways(kind))
  const asked: WebQuestion[] = prompts(count).flatMap((prompt) =>
    each.map((settings) => ({
      kind: 'generate',
      prompt,
      settings: { maxNewTokens: settings.constraint ? 48 : maxNewTokens, ...settings },
    })),
  )
  if (kind !== 'diffusion') return asked
  for (const prompt of prompts(count)) {
    asked.push({ kind: 'infill', text: `${prompt}{{4}} of the {{2-4}} people`, settings: {} })
    asked.push({ kind: 'infill', text: `The {{6}}${prompt}`, settings: { strategy: 'fixed' } })
    asked.push({ kind: 'rewrite', text: `${prompt} teh people`, settings: { editingThreshold: 0.3 } })
  }
  return asked
}

/** What is compared: tokens and forwards of a text, or what stands in its gaps. Runs in the browser too, so it stands alone. */
export async function answerOf(
  model: Pick<OpenModel, 'generate' | 'infill' | 'rewrite'>,
  question: WebQuestion,
): Promise<unknown> {
  if (question.kind === 'generate') {
    const writing = model.generate(question.prompt, question.settings)
    for (;;) {
      const { done, value } = await writing.next()
      if (!done) continue
      const { ids, forwards, text, stop } = value
      return { ids, forwards, text, stop }
    }
  }
  const { text, forwards } = await model[question.kind](question.text, question.settings)
  return { text, forwards }
}
