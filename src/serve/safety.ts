// Safety between the routes and the models: judges prompts before a model sees them and answers before a client does. Knows no
// API's formats; src/safety decides what to look for and what to do.
import {
  type Audit,
  type AuditEntry,
  askEndpoint,
  auditFrom,
  createFilters,
  type EndpointVerdict,
  type Filter,
  type Finding,
  type Judgement,
  strongest,
} from '../safety/index.ts'
import type { Tool } from '../tokenizer/types.ts'
import type { ServeConfig } from './config.ts'
import type { ChoiceEvent } from './generation.ts'
import { createJudging } from './judging.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { GenerateJob, TokenLogprob, UnmaskedToken } from './worker/protocol.ts'

/** Who asks for what, for the audit log. */
export interface Asker {
  request: string
  client: string
  model: string
}

export interface JudgedPrompt {
  /** As the model may see them. */
  texts: string[]
  changed: boolean
  /** Categories that keep the prompt from the model. */
  blocked: string[] | undefined
}

export interface Moderation {
  flagged: boolean
  scores: Map<string, number>
  categories: Set<string>
}

export interface Safety {
  /** Whether prompts are judged at all. */
  readonly prompts: boolean
  /** Rejects with the signal's reason. */
  prompt(texts: readonly string[], asker: Asker, signal: AbortSignal): Promise<JudgedPrompt>
  /** Passes on what may be seen. A blocked choice ends with `content_filter`; when all have, generation does. */
  answers(
    events: AsyncGenerator<ChoiceEvent, void>,
    jobs: readonly GenerateJob[],
    asker: Asker,
  ): AsyncGenerator<ChoiceEvent, void>
  /** Judges the arguments of a call as the client gets them: reading them from the answer may have changed how they are written. */
  call(given: string, asker: Asker, signal: AbortSignal): Promise<{ text: string; blocked: boolean }>
  /** Rejects with the signal's reason. */
  moderate(text: string, client: string, signal: AbortSignal): Promise<Moderation>
  close(): Promise<void>
}

/** What a client gets instead of an answer. */
export const REFUSAL = 'This request was stopped by the content filter of this server.'

/** Text before a piece of an answer that the endpoint sees with it. */
const ENDPOINT_CONTEXT = 2000

interface Options {
  log: Log
  metrics: Metrics
  env: NodeJS.ProcessEnv
}

/** Throws UserError where rules or settings are wrong. */
export async function createSafety(
  { safety, limits }: Pick<ServeConfig, 'safety' | 'limits'>,
  { log, metrics, env }: Options,
): Promise<Safety> {
  const filters = await createFilters(safety)
  const judging = createJudging(safety, limits)
  const { endpoint } = safety
  const audit: Audit | undefined =
    safety.audit && auditFrom(safety.audit, env.UNMASK_AUDIT_KEY, (error) => log.error({ err: error }, 'audit log'))

  /** The endpoint's word on a text; where it fails, what the configuration says. */
  async function ask(text: string, signal?: AbortSignal): Promise<EndpointVerdict | undefined> {
    if (!endpoint || text.trim() === '') return undefined
    const { url, model, timeout_seconds: timeoutSeconds, on_failure: onFailure } = endpoint
    const key = env.UNMASK_MODERATION_KEY
    try {
      return await askEndpoint({ url, timeoutSeconds, model, key, signal }, text)
    } catch (error) {
      signal?.throwIfAborted()
      log.error({ message: error instanceof Error ? error.message : error }, 'moderation endpoint')
      metrics.safety.inc({ direction: 'endpoint', action: 'failure' })
      return { flagged: onFailure === 'block', scores: new Map(), categories: ['unavailable'] }
    }
  }

  function record(
    entry: Pick<AuditEntry, 'direction' | 'text'> & Asker,
    findings: readonly Finding[],
    scores: ReadonlyMap<string, number>,
    blocked: boolean,
  ): void {
    const done = strongest(findings.map(({ action }) => action))
    const flagged = [...scores.values()].some((score) => score >= safety.threshold)
    const action = blocked ? 'block' : done === 'redact' ? 'redact' : done === 'flag' || flagged ? 'flag' : 'pass'
    metrics.safety.inc({ direction: entry.direction, action })
    audit?.write({
      ...entry,
      action,
      categories: Object.fromEntries(scores),
      rules: [...new Set(findings.map(({ rule }) => rule))],
    })
  }

  async function* answers(
    events: AsyncGenerator<ChoiceEvent, void>,
    jobs: readonly GenerateJob[],
    asker: Asker,
  ): AsyncGenerator<ChoiceEvent, void> {
    const { answers: filter } = filters
    if (!filter && !endpoint && !audit) return yield* events
    const choices = jobs.map(({ prompt }) => createChoice(filter, prompt.kind === 'revise'))
    try {
      for await (const event of events) {
        const choice = choices[event.index]!
        if (choice.done) continue
        const { index } = event
        const judged = choice.take(event)
        const last = event.kind === 'end'
        if (endpoint && (last || judged.blocked || choice.unasked() >= endpoint.characters)) {
          const verdict = await ask(choice.question())
          if (verdict?.flagged) judged.blocked = verdict.categories
          else choice.answered()
        }
        const { logprobs, unmasked, text } = choice.give(
          endpoint !== undefined,
          judged.blocked ? 'blocked' : last ? 'ended' : 'open',
        )
        const begin = event.kind === 'text' && event.promptTokens !== undefined
        if (begin || text !== '' || logprobs.length > 0 || unmasked.length > 0)
          yield {
            index,
            kind: 'text',
            text,
            ...(begin ? { promptTokens: event.promptTokens } : {}),
            ...(logprobs.length > 0 ? { logprobs } : {}),
            ...(unmasked.length > 0 ? { unmasked } : {}),
          }
        if (!last && !judged.blocked) continue
        choice.done = true
        const holes = event.kind === 'end' && !judged.blocked ? await choice.holes(event.holes) : undefined
        if (holes?.blocked) judged.blocked = [holes.blocked.category]
        const { findings, scores } = choice
        record(
          { ...asker, direction: 'answer', text: choice.original },
          findings,
          scores(),
          judged.blocked !== undefined,
        )
        yield judged.blocked
          ? { ...choice.result(), index, kind: 'end', finish: 'content_filter' }
          : choice.end(event as Extract<ChoiceEvent, { kind: 'end' }>, holes?.texts)
        if (choices.every(({ done }) => done)) return
      }
    } finally {
      await events.return()
    }
  }

  return {
    prompts: filters.prompts !== undefined || endpoint !== undefined || audit !== undefined,
    async prompt(texts, asker, signal) {
      const judged = []
      for (const text of texts) {
        const result = filters.prompts && (await judging.judge('prompts', text, { client: asker.client, signal }))
        judged.push(result ?? { text, changed: false, blocked: undefined, findings: [], scores: new Map() })
      }
      const local = judged.find((entry) => entry.blocked)?.blocked
      const verdict = local ? undefined : await ask(judged.map(({ text }) => text).join('\n'), signal)
      const blocked = local ? [local.category] : verdict?.flagged ? verdict.categories : undefined
      const scores = new Map<string, number>()
      for (const [category, score] of judged.flatMap((entry) => [...entry.scores]))
        scores.set(category, Math.max(score, scores.get(category) ?? 0))
      const findings = judged.flatMap((entry) => entry.findings)
      record({ ...asker, direction: 'prompt', text: texts.join('\n') }, findings, scores, blocked !== undefined)
      return {
        texts: judged.map(({ text }) => text),
        changed: judged.some(({ changed }) => changed),
        blocked,
      }
    },
    answers,
    async call(given, asker, signal) {
      const judged = await filters.answers?.judge(given, { signal })
      const text = judged?.text ?? given
      const verdict = judged?.blocked ? undefined : await ask(text, signal)
      const blocked = judged?.blocked !== undefined || verdict?.flagged === true
      if (judged || verdict)
        record(
          { ...asker, direction: 'answer', text: given },
          judged?.findings ?? [],
          judged?.scores ?? new Map(),
          blocked,
        )
      return { text, blocked }
    },
    async moderate(text, client, signal) {
      const { scores } = await judging.judge('moderation', text, { client, signal })
      const names = new Set(filters.moderation.flagged(scores))
      const verdict = await ask(text, signal)
      for (const [name, score] of verdict?.scores ?? []) scores.set(name, Math.max(score, scores.get(name) ?? 0))
      for (const name of verdict?.categories ?? []) names.add(name)
      return { flagged: names.size > 0, scores, categories: names }
    },
    async close() {
      await judging.close()
      await audit?.close()
    },
  }
}

/**
 * One answer: its text as it was judged, and what waits with it. Tokens of a text that is revised count from the start of the
 * text, so they wait until all of it has been judged.
 */
function createChoice(filter: Filter | undefined, revised: boolean) {
  const stream = filter?.stream()
  /** What belongs to text up to `end` of the original: sent when that is. */
  let waiting: { end: number; tokens: number; logprobs: TokenLogprob[] }[] = []
  let unmasked: UnmaskedToken[] = []
  let [length, tokens, taken, promptTokens, completionTokens, forwards] = [0, 0, 0, 0, 0, 0]
  /** Judged here, but not yet by the endpoint; then by both, but not yet sent. */
  let ready = ''
  let released = ''
  let seen = ''
  let altered = false
  const choice = {
    done: false,
    original: '',
    findings: [] as Finding[],
    scores: () => stream?.scores() ?? new Map<string, number>(),
    take(event: ChoiceEvent): { blocked: string[] | undefined } {
      if (event.kind === 'text') {
        choice.original += event.text
        length += event.text.length
        promptTokens = event.promptTokens ?? promptTokens
        completionTokens = event.tokens ?? completionTokens
        forwards = event.forwards ?? forwards
        tokens = Math.max(tokens, event.tokens ?? 0)
        waiting.push({ end: length, tokens, logprobs: event.logprobs ?? [] })
        unmasked.push(...(event.unmasked ?? []))
      }
      const parts: Judgement[] = stream ? [event.kind === 'text' ? stream.push(event.text) : stream.end()] : []
      for (const part of parts) {
        ready += part.text
        taken += part.taken
        altered ||= part.changed
        choice.findings.push(...part.findings)
      }
      if (!stream) {
        if (event.kind === 'text') ready += event.text
        taken = length
      }
      const blocked = parts.find((part) => part.blocked)?.blocked
      return { blocked: blocked ? [blocked.category] : undefined }
    },
    unasked: () => ready.length,
    question: () => (ready === '' ? '' : seen.slice(-ENDPOINT_CONTEXT) + ready),
    answered() {
      seen += ready
      released += ready
      ready = ''
    },
    give(asks: boolean, state: 'open' | 'ended' | 'blocked') {
      let text = released
      released = ''
      if (!asks) {
        text += ready
        ready = ''
      }
      // Tokens would reveal what was taken out of the text, or is not yet judged.
      const free = ready === '' && state !== 'blocked' ? waiting.filter(({ end }) => end <= taken) : []
      waiting = waiting.slice(free.length)
      const known = revised ? (state === 'ended' ? Number.POSITIVE_INFINITY : -1) : (free.at(-1)?.tokens ?? -1)
      const shown = unmasked.filter(({ position }) => position < known)
      unmasked = unmasked.filter(({ position }) => position >= known)
      if (altered) return { text, logprobs: [], unmasked: [] }
      // Of a position that changed, what it held before is no part of what was judged.
      const final = new Map(shown.map((token) => [token.position, token]))
      return {
        text,
        logprobs: free.flatMap(({ logprobs }) => logprobs),
        unmasked: shown.filter((token) => final.get(token.position) === token),
      }
    },
    /** Texts of holes, each judged by itself as the client gets it: what stands around it may have hidden a word. */
    async holes(given: readonly string[] | undefined): Promise<{ texts: string[]; blocked: Finding | undefined }> {
      const parts = await Promise.all((given ?? []).map((text) => filter?.judge(text)))
      return {
        texts: (given ?? []).map((text, i) => parts[i]?.text ?? text),
        blocked: parts.find((part) => part?.blocked)?.blocked,
      }
    },
    /** The end of a choice, without the texts of its holes where something was taken out of them. */
    end(event: Extract<ChoiceEvent, { kind: 'end' }>, texts: string[] | undefined): ChoiceEvent {
      if (!event.holes) return event
      const { holes: _, ...rest } = event
      return altered ? rest : { ...rest, holes: texts ?? event.holes }
    },
    result: () => ({ promptTokens, cachedTokens: 0, completionTokens, forwards }),
  }
  return choice
}

/** The answer to a prompt that no model gets to see. */
export function* refuseAll(count: number): Generator<ChoiceEvent> {
  const nothing = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, forwards: 0 }
  for (let index = 0; index < count; index++) {
    yield { index, kind: 'text', text: '', promptTokens: 0 }
    yield { index, kind: 'end', finish: 'content_filter', ...nothing }
  }
}

/** The prompts of jobs as texts, and the jobs with other texts. Ids become text only where something has to be changed. */
export async function judgeJobs(
  safety: Safety,
  jobs: readonly GenerateJob[],
  { asker, signal, detokenize }: { asker: Asker; signal: AbortSignal; detokenize: (ids: number[]) => Promise<string> },
): Promise<{ jobs: GenerateJob[]; blocked: boolean }> {
  if (!safety.prompts) return { jobs: [...jobs], blocked: false }
  const judged: GenerateJob[] = []
  const known = new Map<GenerateJob['prompt'], GenerateJob['prompt']>()
  for (const job of jobs) {
    const { prompt, suffix } = job
    const parts =
      prompt.kind === 'chat'
        ? [...prompt.messages.flatMap(textsOf), ...(prompt.tools ?? []).map((tool) => JSON.stringify(tool))]
        : prompt.kind === 'revise'
          ? prompt.parts.filter((part) => typeof part === 'string')
          : [prompt.kind === 'ids' ? await detokenize(prompt.ids) : prompt.text]
    let changed = known.get(prompt)
    let behind = suffix
    if (!changed || suffix !== undefined) {
      const {
        texts,
        blocked,
        changed: anything,
      } = await safety.prompt(suffix === undefined ? parts : [...parts, suffix], asker, signal)
      if (blocked) return { jobs: [], blocked: true }
      changed = anything ? withTexts(prompt, texts) : prompt
      if (suffix !== undefined) behind = texts.at(-1)
      known.set(prompt, changed)
    }
    judged.push({ ...job, prompt: changed, suffix: behind })
  }
  return { jobs: judged, blocked: false }
}

type Message = Extract<GenerateJob['prompt'], { kind: 'chat' }>['messages'][number]

/** What a message says: its content, who it is from, its reasoning, and the arguments of its calls as JSON. */
const textsOf = ({ content, name, reasoning_content: reasoning, tool_calls: calls = [] }: Message): string[] => [
  content,
  ...(name === undefined ? [] : [name]),
  ...(reasoning === undefined ? [] : [reasoning]),
  ...calls.map((call) => JSON.stringify(call.function.arguments) ?? ''),
]

function withTexts(prompt: GenerateJob['prompt'], texts: readonly string[]): GenerateJob['prompt'] {
  let next = 0
  if (prompt.kind === 'revise')
    return { ...prompt, parts: prompt.parts.map((part) => (typeof part === 'string' ? (texts[next++] ?? '') : part)) }
  if (prompt.kind !== 'chat') return { kind: 'text', text: texts[0] ?? '' }
  const messages = prompt.messages.map((message) => {
    const replaced: Message = { ...message, content: texts[next++] ?? '' }
    if (message.name !== undefined) replaced.name = texts[next++]
    if (message.reasoning_content !== undefined) replaced.reasoning_content = texts[next++]
    if (message.tool_calls)
      replaced.tool_calls = message.tool_calls.map((call) => ({
        ...call,
        function: { ...call.function, arguments: fromJson(texts[next++] ?? '') },
      }))
    return replaced
  })
  const tools = prompt.tools?.map((tool) => toolFrom(texts[next++] ?? '', tool))
  return { ...prompt, messages, tools }
}

/** A tool whose texts were replaced in its JSON; its name alone where a rule's replacement broke it. */
function toolFrom(text: string, { type, function: { name } }: Tool): Tool {
  const read = fromJson(text)
  return typeof read === 'object' ? (read as Tool) : { type, function: { name } }
}

/** A value whose texts were replaced in its JSON; the text where a rule's replacement broke it. */
function fromJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
