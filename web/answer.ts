// One generation on the page: its canvas or its text, its numbers, its error.
import { ApiFailure, type ModelInfo, type Run } from './api.ts'
import { createCanvas } from './canvas.ts'
import type { Context } from './context.ts'
import { copyButton, h } from './dom.ts'
import { stopped } from './runner.ts'
import { modeName, sampleOf, summary } from './session.ts'

export interface Answer {
  element: HTMLElement
  update(run: Run): void
  /** Ends it; the numbers of a generation that ended by itself are counted. */
  end(run: Run): void
  fail(error: unknown): void
  /** The text so far. */
  text(): string
}

/** Chosen for all answers of the page. */
let view: 'tokens' | 'text' = 'tokens'

export function createAnswer(context: Context, model: ModelInfo, task: string): Answer {
  let last: Run | undefined
  const canvas = createCanvas(`Tokens of ${model.id}`)
  const text = h('div', { class: 'text' })
  const waiting = h('p', { class: 'waiting', role: 'status' }, 'Waiting for the first tokens')
  const numbers = h('ul', { class: 'numbers', 'aria-label': 'Numbers' })
  const tools = h('span', { class: 'tools', hidden: true })
  const foot = h('div', { class: 'foot', role: 'status', hidden: true }, numbers)
  const switches = (['tokens', 'text'] as const).map((name) =>
    h(
      'button',
      { type: 'button', 'aria-pressed': 'false', onclick: () => show(name) },
      name === 'tokens' ? 'Tokens' : 'Text',
    ),
  )
  const element = h(
    'article',
    { class: 'answer', 'aria-label': `${task} by ${model.id}`, 'aria-busy': 'true' },
    h(
      'header',
      {},
      h('span', { class: 'name' }, model.id),
      h('span', { class: 'mode' }, modeName(model)),
      h(
        'span',
        { class: 'views' },
        tools,
        h('span', { class: 'switch', role: 'group', 'aria-label': 'View' }, ...switches),
      ),
    ),
    waiting,
    canvas.element,
    text,
    foot,
  )
  tools.append(copyButton(() => last?.text ?? ''))
  show(view)

  function show(name: typeof view): void {
    view = name
    canvas.element.hidden = view !== 'tokens' || last === undefined
    text.hidden = view !== 'text' || last === undefined
    for (const [index, button] of switches.entries())
      button.setAttribute('aria-pressed', String((index === 0) === (view === 'tokens')))
  }

  function update(run: Run, running = true): void {
    const begun = run.recording.steps.length > 0 || run.recording.layout !== undefined || run.text !== '' || !running
    if (!begun) return
    const first = last === undefined
    last = run
    waiting.remove()
    if (first) show(view)
    text.textContent = run.text === '' && !running ? '(no text)' : run.text
    canvas.update(run.recording, running)
  }

  function finish(): void {
    element.setAttribute('aria-busy', 'false')
    waiting.remove()
    foot.hidden = last === undefined
    tools.hidden = foot.hidden
  }

  return {
    element,
    update,
    end(run) {
      update(run, false)
      finish()
      const sample = sampleOf(model, task, run)
      if (task !== 'repair') context.count(sample)
      const items = sample ? summary(sample) : []
      if (run.finish === 'length') items.push('cut at the longest answer')
      numbers.replaceChildren(...items.map((item) => h('li', {}, item)))
    },
    fail(error) {
      if (last) canvas.update(last.recording, false)
      finish()
      if (error === stopped) numbers.replaceChildren(h('li', {}, 'stopped'))
      else element.append(errorView(context, error))
    },
    text: () => last?.text ?? '',
  }
}

/** What went wrong, and what may help. */
export function errorView(context: Context, error: unknown): HTMLElement {
  const failure = error instanceof ApiFailure ? error : undefined
  const message = error instanceof Error ? error.message : String(error)
  const view = h('div', { class: 'error', role: 'alert' }, h('p', {}, message))
  if (failure?.status === 401)
    view.append(h('button', { type: 'button', onclick: () => context.askKey() }, 'Enter the API key'))
  else if (failure?.status === 0)
    view.append(h('button', { type: 'button', onclick: () => void context.refresh() }, 'Try to reach it again'))
  else if (failure?.retryAfter !== undefined)
    view.append(h('p', { class: 'hint' }, `Try again in ${failure.retryAfter} s.`))
  else if (failure?.param) view.append(h('p', { class: 'hint' }, `Field of the request: ${failure.param}`))
  return view
}
