// Chat: turns one after the other, every answer with its canvas.
import { createAnswer } from './answer.ts'
import { createComposer } from './composer.ts'
import type { Context, Mode } from './context.ts'
import { h } from './dom.ts'
import { send, type Turn } from './prompt.ts'

export function createChat(context: Context): Mode {
  const turns: Turn[] = []
  const composer = createComposer(context, 'chat-prompt', run)
  const start = h(
    'div',
    { class: 'empty' },
    h('h2', {}, 'Watch a model write'),
    h(
      'p',
      {},
      'Send a prompt, then move the slider under the answer to replay its steps. A model trained on blocks fills them with the tokens that it is surest of, wherever they stand; others write from left to right, one token or several in a step.',
    ),
    composer.examples,
  )
  const log = h('div', { class: 'log' }, start)
  const clear = h('button', { type: 'button', class: 'quiet', hidden: true, onclick: empty }, 'New chat')
  const element = h('div', { class: 'mode chat' }, h('div', { class: 'scroller' }, log), clear, composer.element)
  composer.element.querySelector('.bar')?.prepend(clear)

  function empty(): void {
    composer.runner.stop()
    turns.length = 0
    log.replaceChildren(start)
    clear.hidden = true
    composer.focus()
  }

  function run(): void {
    const model = context.model()
    if (!model || composer.runner.running) return
    const prompt = composer.take()
    if (prompt === '') {
      composer.focus()
      return
    }
    start.remove()
    clear.hidden = false
    const chat = context.settings.asChat(model)
    const asked: Turn = { role: 'user', content: prompt }
    const answer = createAnswer(context, model, 'answer')
    log.append(h('div', { class: 'prompt' }, prompt), answer.element)
    answer.element.scrollIntoView({ block: 'end' })
    void composer.runner.run(async (signal) => {
      try {
        const onUpdate = answer.update
        const result = await send(context, model, chat ? [...turns, asked] : [asked], { signal, onUpdate })
        answer.end(result)
      } catch (error) {
        answer.fail(error)
      }
      // A prompt without an answer would have two of the same role in a row.
      if (chat && answer.text() !== '' && log.contains(answer.element))
        turns.push(asked, { role: 'assistant', content: answer.text() })
      answer.element.scrollIntoView({ block: 'nearest' })
    })
  }

  return {
    element,
    refresh() {
      composer.refresh()
      composer.runner.enable(context.model() !== undefined)
    },
    run,
    stop: composer.runner.stop,
    focus: composer.focus,
  }
}
