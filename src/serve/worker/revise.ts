// Texts that a model revises in place: holes that it fills, tokens that it corrects. Knows no HTTP.

import type { CommittedToken, Generation } from '../../decode/index.ts'
import type { Generator } from '../../text/generator.ts'
import { encodeTexts, holeText, type Layout, layOut } from '../../text/holes.ts'
import { createTextStream, type TextStream, tokenText } from '../../tokenizer/stream.ts'
import { asReported, RequestError } from './errors.ts'
import type { GenerateEvent, GenerateJob, GenerateResult, LayoutToken, Revision, UnmaskedToken } from './protocol.ts'

interface Context {
  generator: Generator
  maxPositions: number
  signal: AbortSignal
  onEvent: (event: GenerateEvent) => void
}

/**
 * Positions of events count from the start of the text. Completion tokens are those that were decided: all of the holes, or
 * those that were replaced. Texts around holes are reported as they were given. Rejects with RequestError for what the model
 * cannot.
 */
export async function revise(
  prompt: Revision,
  job: GenerateJob,
  { generator, maxPositions, signal, onEvent }: Context,
): Promise<GenerateResult> {
  const { task, parts } = prompt
  const layout = layOutParts(prompt, job, { generator, maxPositions })
  const { ids } = layout
  const generation = begin(task, layout, job, { generator, signal })
  const masked = ids.filter((id) => id === generator.maskTokenId).length
  const given = ids.length - masked
  onEvent({
    promptTokens: given,
    text: '',
    ...(job.unmasking ? { layout: shownLayout(prompt, layout, generator) } : {}),
  })

  const current = [...ids]
  const replaced = new Set<number>()
  const textUpTo = task === 'fill' ? filledText(parts, layout, current, generator) : wholeText(current, generator)
  let forwards = 0
  try {
    for (;;) {
      const { done, value } = await generation.next()
      if (done) {
        for (const [i, id] of value.ids.entries()) current[i] = id
        const rest = textUpTo(ids.length) + textUpTo('end')
        if (rest !== '') onEvent({ text: rest })
        const { cachedTokens } = value
        const completionTokens = task === 'fill' ? masked : replaced.size
        const result: GenerateResult = { finish: 'stop', promptTokens: given, cachedTokens, completionTokens, forwards }
        if (task === 'fill')
          result.holes = layout.spans
            .filter((_, i) => typeof parts[i] !== 'string')
            .map((span) => holeText(current, span, generator.tokenizer))
        return result
      }
      forwards++
      for (const { position, token } of value.tokens) {
        if (token === ids[position]) replaced.delete(position)
        else replaced.add(position)
        current[position] = token
      }
      const event: GenerateEvent = { text: textUpTo(value.final), tokens: replaced.size, forwards }
      if (job.unmasking) event.unmasked = value.tokens.map((token) => unmaskedToken(token, value.step, generator))
      if (event.text !== '' || event.unmasked) onEvent(event)
    }
  } finally {
    // Leaving early gives the place back.
    await generation.return(undefined as never)
  }
}

/** A token as those see it who watch; positions from `start` on count. */
export function unmaskedToken(
  { position, token, confidence, edited }: CommittedToken,
  step: number,
  { tokenizer }: Pick<Generator, 'tokenizer'>,
  start = 0,
): UnmaskedToken {
  const text = tokenText(tokenizer, token, { partial: 'replaced' })
  return { position: position - start, token, text, step, confidence, edited }
}

type TextUpTo = (final: number | 'end') => string

/** The text of tokens up to a position, from where it was asked for before. */
function wholeText(current: readonly number[], { tokenizer }: Generator): TextUpTo {
  const stream = createTextStream(tokenizer)
  let next = 0
  return (final) => {
    if (final === 'end') return stream.end()
    let text = ''
    for (; next < final; next++) text += stream.push(current[next]).text
    return text
  }
}

/** The same where texts are as they were given, and only holes have text of their own. */
function filledText(
  parts: Revision['parts'],
  { spans }: Layout,
  current: readonly number[],
  { tokenizer }: Generator,
): TextUpTo {
  let part = 0
  let hole: { stream: TextStream; next: number } | undefined
  return (final) => {
    let text = ''
    for (; part < spans.length; part++) {
      const { start, end } = spans[part]
      const given = parts[part]
      if (typeof given === 'string') {
        if (final !== 'end' && end > final) break
        text += given
        continue
      }
      hole ??= { stream: createTextStream(tokenizer, { after: current.slice(0, start) }), next: start }
      const known = final === 'end' ? end : Math.min(end, final)
      for (; hole.next < known; hole.next++) text += hole.stream.push(current[hole.next]).text
      if (known < end) break
      text += hole.stream.end()
      hole = undefined
    }
    return text
  }
}

/** Every token of the text with the characters that it completes, and the number of its hole where it is in one. */
function shownLayout({ parts }: Revision, { ids, spans }: Layout, { tokenizer }: Generator): LayoutToken[] {
  const holes = spans.filter((_, i) => typeof parts[i] !== 'string')
  const stream = createTextStream(tokenizer)
  return ids.map((id, position) => {
    const hole = holes.findIndex(({ start, end }) => position >= start && position < end)
    return hole === -1 ? { text: stream.push(id).text } : { text: '', hole }
  })
}

function layOutParts(
  { parts }: Revision,
  job: GenerateJob,
  { generator, maxPositions }: Pick<Context, 'generator' | 'maxPositions'>,
): Layout {
  const { maskTokenId, tokenizer } = generator
  if (generator.mode !== 'diffusion' || maskTokenId === undefined)
    throw new RequestError('this model cannot revise a text: it writes from left to right', { param: 'model' })
  const sizeOf = (i: number) => (parts[i] as { mask: number }).mask
  const layout = layOut(encodeTexts(parts, tokenizer), maskTokenId, sizeOf)
  const most = Math.min(job.maxPromptTokens + job.maxNewTokens, maxPositions)
  if (layout.ids.length > most)
    throw new RequestError(`the text has ${layout.ids.length} tokens; at most ${most} are possible here`, {
      param: job.promptParam,
      code: 'context_length_exceeded',
    })
  return layout
}

function begin(
  task: Revision['task'],
  { ids, spans }: Layout,
  { sampling, promptParam, sharing }: GenerateJob,
  { generator, signal }: Pick<Context, 'generator' | 'signal'>,
): Generation {
  const { logitBias, strategy, ...rest } = sampling
  const settings = {
    blockSize: generator.blockSize,
    ...rest,
    signal,
    logitBias: logitBias && new Map(logitBias),
    sharing,
  }
  try {
    // What stands before the text stays.
    if (task === 'rewrite') return generator.rewrite(ids, { ...settings, from: spans[0].start })
    return generator.fill(ids, { ...settings, strategy })
  } catch (error) {
    throw asReported(error, promptParam)
  }
}
