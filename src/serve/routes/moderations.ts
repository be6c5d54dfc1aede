// POST /v1/moderations: the filter's opinion of texts, in OpenAI's shape. Categories of rules stand beside OpenAI's own.
import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import { categories } from '../../safety/index.ts'
import { readBody } from '../body.ts'
import { textOf } from '../messages.ts'
import type { Moderation } from '../safety.ts'
import { moderationRequest } from '../schemas.ts'
import type { Env, RouteContext } from './settings.ts'

/** What is judged, by name and version. */
const MODEL = 'unmask-classifier-1'

export const moderationsRoute =
  ({ limits, safety }: RouteContext) =>
  async (c: Context<Env>) => {
    const { input } = await readBody(c, moderationRequest, limits)
    const texts = typeof input === 'string' ? [input] : isTexts(input) ? input : [textOf(input)]
    const results = []
    for (const text of texts) results.push(resultOf(await safety.moderate(text, c.var.client, c.var.gone.signal)))
    return c.json({ id: `modr-${randomUUID()}`, model: MODEL, results })
  }

const isTexts = (input: readonly unknown[]): input is string[] => input.every((item) => typeof item === 'string')

function resultOf({ flagged, scores, categories: found }: Moderation) {
  const names = [...new Set([...categories, ...scores.keys(), ...found])]
  const each = <T>(value: (name: string) => T) => Object.fromEntries(names.map((name) => [name, value(name)]))
  return {
    flagged,
    categories: each((name) => found.has(name)),
    category_scores: each((name) => scores.get(name) ?? 0),
    category_applied_input_types: each(() => ['text']),
  }
}
