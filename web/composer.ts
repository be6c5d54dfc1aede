// The field in which a prompt is written, with the button that sends it and what it is sent as.
import type { Context } from './context.ts'
import { h, icon, icons } from './dom.ts'
import { examples } from './prompt.ts'
import { createRunner, type Runner } from './runner.ts'

export interface Composer {
  element: HTMLElement
  runner: Runner
  /** The prompt; '' where there is none. */
  take(): string
  refresh(): void
  focus(): void
  /** Prompts to begin with; one that is chosen is sent. */
  examples: HTMLElement
}

export function createComposer(context: Context, id: string, send: () => void): Composer {
  const { settings } = context
  const runner = createRunner('Send', send)
  const field = h('textarea', {
    ...{ id, rows: 1, placeholder: 'Write a prompt', 'aria-label': 'Prompt', onkeydown: key, oninput: grow },
  })
  const formatText = h('span')
  const format = h('button', { type: 'button', class: 'quiet', onclick: toggle }, icon(icons.swap), formatText)
  const element = h(
    'div',
    { class: 'composer' },
    field,
    h(
      'div',
      { class: 'bar' },
      format,
      h('span', { class: 'hint keys' }, 'Enter sends, Shift + Enter begins a line'),
      runner.button,
    ),
  )

  function key(event: KeyboardEvent): void {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    if (!runner.running) send()
  }
  function grow(): void {
    field.style.height = 'auto'
    field.style.height = `${Math.min(field.scrollHeight + 2, 240)}px`
  }
  function toggle(): void {
    const model = context.model()
    if (model) settings.sendAs(settings.asChat(model) ? 'text' : 'chat')
  }
  const group = (title: string, chat: boolean) =>
    h(
      'div',
      {},
      h('h3', {}, title),
      ...examples(chat).map((text) =>
        h(
          'button',
          {
            ...{ type: 'button', class: 'example' },
            onclick: () => {
              settings.sendAs(chat ? 'chat' : 'text')
              field.value = text
              send()
            },
          },
          text,
        ),
      ),
    )

  return {
    element,
    runner,
    examples: h(
      'div',
      { class: 'examples' },
      group('Ask a chat model', true),
      group('Continue text, as the tiny model does', false),
    ),
    take() {
      const text = field.value
      if (text.trim() === '') return ''
      field.value = ''
      grow()
      return text
    },
    refresh() {
      const model = context.model()
      format.hidden = !model
      if (!model) return
      const chat = settings.asChat(model)
      formatText.textContent = chat ? 'Sent as a chat' : 'Sent as plain text'
      format.title = chat ? 'Send plain text instead, to be continued' : 'Send as a chat instead'
    },
    focus: () => field.focus(),
  }
}
