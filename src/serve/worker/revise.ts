// Texts that a model revises in place: holes that it fills, tokens that it mends. Knows no HTTP.
import type { Generation } from '../../decode/index.ts'
import { type Generator, promptIds } from '../../generate.ts'
import type { Tokenizer } from '../../tokenizer/types.ts'
import { UserError } from '../../types.ts'
import { createAnswerText } from '../text.ts'
import { RequestError } from './errors.ts'
import type { GenerateEvent, GenerateJob, GenerateResult, LayoutToken, Revision } from './protocol.ts'

interface Context {
  generator: Generator
  tokenizer: Tokenizer
  maxPositions: number
  /** In a hole, what is behind one of these is no part of its text. */
  eos: ReadonlySet<number>
  signal: AbortSignal
  onEvent: (event: GenerateEvent) => void
}

/**
 * Positions of events count from the start of the text. Completion tokens are those that were decided: all of the holes, or
 * those that were replaced. Rejects with RequestError for what the model cannot.
 */
export async function revise(
  prompt: Revision,
  job: GenerateJob,
  { generator, tokenizer, maxPositions, eos, signal, onEvent }: Context,
): Promise<GenerateResult> {
  const { ids, holeOf, holes } = layOut(prompt, job, { generator, tokenizer, maxPositions })
  const generation = begin(prompt, ids, job, { generator, signal, eos })
  const given = ids.length - holeOf.size
  const layoutToken = (id: number, i: number): LayoutToken => {
    const hole = holeOf.get(i)
    return hole === undefined ? { text: tokenizer.decode([id]) } : { text: '', hole }
  }
  onEvent({ promptTokens: given, text: '', ...(job.unmasking ? { layout: ids.map(layoutToken) } : {}) })

  const text = createAnswerText(tokenizer)
  const current = [...ids]
  const replaced = new Set<number>()
  let next = 0
  let ended: number | undefined
  let forwards = 0
  /** The text up to a position that is final. */
  const take = (final: number): string => {
    let fresh = ''
    for (; next < final; next++) {
      const hole = holeOf.get(next)
      if (hole !== undefined && eos.has(current[next]!)) ended = hole
      if (hole === undefined || hole !== ended) fresh += text.push(current[next]!).text
    }
    return fresh
  }
  try {
    for (;;) {
      const { done, value } = await generation.next()
      if (done) {
        for (const [i, id] of value.ids.entries()) current[i] = id
        const rest = take(ids.length) + text.end()
        if (rest !== '') onEvent({ text: rest })
        const completionTokens = prompt.task === 'fill' ? holeOf.size : replaced.size
        const filled = holes.map((positions) => holeText(positions.map((i) => current[i]!)))
        return {
          ...{ finish: 'stop', promptTokens: given, cachedTokens: value.cachedTokens, completionTokens, forwards },
          ...(prompt.task === 'fill' ? { holes: filled } : {}),
        }
      }
      forwards++
      for (const { position, token } of value.tokens) {
        if (token === ids[position]) replaced.delete(position)
        else replaced.add(position)
        current[position] = token
      }
      const unmasked = value.tokens.map(({ position, token, confidence, edited }) => ({
        ...{ position, token, text: tokenizer.decode([token]), step: value.step, confidence },
        ...(edited ? { edited } : {}),
      }))
      const event: GenerateEvent = { text: take(value.final), tokens: replaced.size, forwards }
      if (job.unmasking) event.unmasked = unmasked
      if (event.text !== '' || event.unmasked) onEvent(event)
    }
  } finally {
    // Leaving early gives the place back.
    await generation.return(undefined as never)
  }

  function holeText(tokens: number[]): string {
    const end = tokens.findIndex((id) => eos.has(id))
    return tokenizer.decode(end === -1 ? tokens : tokens.slice(0, end), { skipSpecialTokens: true })
  }
}

function layOut(
  { parts }: Revision,
  job: GenerateJob,
  { generator, tokenizer, maxPositions }: Pick<Context, 'generator' | 'tokenizer' | 'maxPositions'>,
): { ids: number[]; holeOf: Map<number, number>; holes: number[][] } {
  const param = job.promptParam
  const { maskTokenId } = generator
  if (generator.mode !== 'diffusion' || maskTokenId === undefined)
    throw new RequestError('this model cannot revise a text: it writes from left to right', { param: 'model' })
  const ids: number[] = []
  const holeOf = new Map<number, number>()
  const holes: number[][] = []
  for (const [index, part] of parts.entries()) {
    if (typeof part === 'string') {
      const tokens = index === 0 ? promptIds(part, { tokenizer }, { template: 'none' }) : tokenizer.encode(part)
      if (tokens.includes(maskTokenId))
        throw new RequestError('the text holds the model\'s mask token; say a hole as {"mask": N}', { param })
      // One by one: arguments of a call are limited.
      for (const token of tokens) ids.push(token)
      continue
    }
    const positions = Array.from({ length: part.mask }, (_, i) => ids.length + i)
    for (const position of positions) {
      holeOf.set(position, holes.length)
      ids.push(maskTokenId)
    }
    holes.push(positions)
  }
  const most = Math.min(job.maxPromptTokens + job.maxNewTokens, maxPositions)
  if (ids.length > most)
    throw new RequestError(`the text has ${ids.length} tokens; at most ${most} are possible here`, {
      param,
      code: 'context_length_exceeded',
    })
  return { ids, holeOf, holes }
}

function begin(
  { task }: Revision,
  ids: number[],
  { sampling, promptParam }: GenerateJob,
  { generator, signal, eos }: Pick<Context, 'generator' | 'signal' | 'eos'>,
): Generation {
  const { logitBias = [], strategy, ...rest } = sampling
  const settings = { blockSize: generator.blockSize, ...rest, signal }
  const biased = (biases: [number, number][]) => (biases.length === 0 ? {} : { logitBias: new Map(biases) })
  try {
    if (task === 'rewrite') {
      // A text that is mended ends where it ended.
      const noEnd = [...eos].map((id): [number, number] => [id, -100])
      return generator.rewrite(ids, { ...settings, ...biased([...noEnd, ...logitBias]) })
    }
    return generator.fill(ids, { ...settings, ...biased(logitBias), ...(strategy === undefined ? {} : { strategy }) })
  } catch (error) {
    if (error instanceof UserError) throw new RequestError(error.message, { param: promptParam })
    throw error
  }
}
