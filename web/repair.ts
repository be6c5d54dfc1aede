// Repair: a noisy text, whose tokens a model replaces where it is surer of others; what changed.
import { createAnswer } from './answer.ts'
import type { Context, Mode } from './context.ts'
import { diffWords } from './diff.ts'
import { h } from './dom.ts'
import { createRunner } from './runner.ts'

const EXAMPLE = 'We hold thees truths to be self evident, that al men are created eqaul.'

export function createRepair(context: Context): Mode {
  const runner = createRunner('Correct', run)
  const field = h('textarea', {
    ...{ id: 'repair-text', rows: 5, placeholder: 'Paste a noisy text, such as the output of speech recognition' },
    ...{ 'aria-label': 'Noisy text', oninput: refresh },
  })
  const example = h('button', { type: 'button', class: 'quiet', onclick: showExample }, 'Example')
  const threshold = h('input', {
    ...{
      type: 'number',
      min: 0,
      max: 1,
      step: 'any',
      placeholder: '0.5',
      inputmode: 'decimal',
      id: 'repair-threshold',
    },
  })
  const notice = h('p', { class: 'notice', hidden: true })
  const result = h('div', { class: 'result' })
  const element = h(
    'div',
    { class: 'mode repair' },
    h(
      'div',
      { class: 'scroller' },
      h(
        'div',
        { class: 'intro' },
        h('h2', {}, 'Correct a text'),
        h(
          'p',
          {},
          'The model reads every token again and replaces those where another is more probable. The number of tokens stays the same. This needs a model trained to correct tokens: one that was only trained to fill masks corrects little, or spoils the text.',
        ),
      ),
      notice,
      field,
      h(
        'div',
        { class: 'bar' },
        h('label', { class: 'inline' }, 'Replace where surer than', threshold),
        example,
        h('span', { class: 'hint keys' }, 'Ctrl + Enter corrects'),
        runner.button,
      ),
      result,
    ),
  )

  function editing(): { editing_threshold?: number } {
    if (!threshold.checkValidity()) throw new RangeError(`Replace where surer than: ${threshold.validationMessage}`)
    return threshold.value === '' ? {} : { editing_threshold: Number(threshold.value) }
  }

  function showExample(): void {
    field.value = EXAMPLE
    refresh()
    field.focus()
  }

  function run(): void {
    const model = context.model()
    const input = field.value
    if (!model || runner.running || input.trim() === '') return
    const answer = createAnswer(context, model, 'repair')
    const changes = h('section', { class: 'changes', hidden: true, 'aria-label': 'What changed' })
    result.replaceChildren(changes, answer.element)
    void runner.run(async (signal) => {
      try {
        const unmask = { ...context.settings.rewriteFields(), ...editing() }
        const body = { model: model.id, input, unmask }
        const { client } = context
        const done = await client.run({ path: '/v1/rewrite', body, most: 0, signal, onUpdate: answer.update })
        answer.end(done)
        showChanges(changes, input, done.text)
      } catch (error) {
        answer.fail(error)
      }
    })
  }

  function refresh(): void {
    const model = context.model()
    notice.hidden = model?.mode !== 'ar'
    notice.textContent = `${model?.id} writes from left to right and cannot correct a text. Choose a diffusion model.`
    example.hidden = field.value !== ''
    runner.enable(model !== undefined && model.mode !== 'ar' && field.value.trim() !== '')
  }

  return { element, refresh, run, stop: runner.stop, focus: () => field.focus() }
}

function showChanges(section: HTMLElement, before: string, after: string): void {
  const changes = diffWords(before, after)
  const count = changes.filter(({ same }) => !same).length
  const title = count === 0 ? 'Nothing was changed' : `${count} ${count === 1 ? 'change' : 'changes'}`
  const parts = changes.flatMap(({ before, after, same }): (Node | string)[] => {
    if (same) return [before]
    return [...(before === '' ? [] : [h('del', {}, before)]), ...(after === '' ? [] : [h('ins', {}, after)])]
  })
  section.hidden = false
  section.replaceChildren(h('h3', {}, title), h('p', { class: 'diff' }, ...parts))
}
