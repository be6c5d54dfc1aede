// Compare: one prompt, two models, one after the other so that neither slows the other.
import { createAnswer } from './answer.ts'
import type { ModelInfo } from './api.ts'
import { createComposer } from './composer.ts'
import type { Context, Mode } from './context.ts'
import { h } from './dom.ts'
import { send } from './prompt.ts'
import { type Sample, sampleOf, seconds } from './session.ts'

export function createCompare(context: Context): Mode {
  const composer = createComposer(context, 'compare-prompt', run)
  const selects = ['First model', 'Second model'].map((label) =>
    h('select', { 'aria-label': label, onchange: () => refresh() }),
  ) as [HTMLSelectElement, HTMLSelectElement]
  const columns = [h('div', { class: 'column' }), h('div', { class: 'column' })] as const
  const verdict = h('p', { class: 'verdict', role: 'status' })
  const intro = h(
    'div',
    { class: 'empty' },
    h('h2', {}, 'The same prompt, side by side'),
    h(
      'p',
      {},
      'The models answer one after the other, so that neither slows the other. The first answer of a model that was idle may take longer.',
    ),
    composer.examples,
  )
  const alone = h(
    'div',
    { class: 'empty', hidden: true },
    h('h2', {}, 'A second model is needed'),
    h('p', {}, 'Start the server with the converted model and its autoregressive base:'),
    h('pre', {}, 'unmask serve converted=runs/quickstart/model base=models/tiny'),
  )
  const board = h(
    'div',
    { class: 'board' },
    ...selects.map((select, index) => h('section', {}, h('div', { class: 'pick' }, select), columns[index]!)),
  )
  const element = h(
    'div',
    { class: 'mode compare' },
    h('div', { class: 'scroller' }, alone, board, verdict, intro),
    composer.element,
  )

  function refresh(): void {
    const models = context.models()
    const known = models.map(({ id }) => id)
    const first = models.find(({ mode }) => mode !== undefined && mode !== 'ar') ?? models[0]
    const second =
      models.find((model) => model.mode === 'ar' && model !== first) ?? models.find((model) => model !== first)
    for (const [index, select] of selects.entries()) {
      const chosen = known.includes(select.value) ? select.value : [first, second][index]?.id
      select.replaceChildren(...known.map((id) => h('option', { value: id, selected: id === chosen }, id)))
    }
    alone.hidden = models.length !== 1
    board.hidden = models.length < 2
    intro.hidden = models.length < 2 || columns[0].childElementCount > 0
    composer.refresh()
    composer.runner.enable(models.length >= 2)
  }

  function run(): void {
    const picked = selects.map((select) => context.models().find(({ id }) => id === select.value))
    const [first, second] = picked
    if (!first || !second || composer.runner.running) return
    const prompt = composer.take()
    if (prompt === '') {
      composer.focus()
      return
    }
    intro.hidden = true
    verdict.textContent = ''
    const question = h('div', { class: 'prompt' }, prompt)
    board.querySelector('.prompt')?.remove()
    board.prepend(question)
    const answers = [first, second].map((model, index) => {
      const answer = createAnswer(context, model, 'comparison')
      columns[index]!.replaceChildren(answer.element)
      return { model, answer }
    })
    void composer.runner.run(async (signal) => {
      const samples: (Sample | undefined)[] = []
      for (const { model, answer } of answers) {
        try {
          const result = await send(context, model, [{ role: 'user', content: prompt }], {
            signal,
            onUpdate: answer.update,
          })
          answer.end(result)
          samples.push(sampleOf(model, 'comparison', result))
        } catch (error) {
          answer.fail(error)
        }
      }
      verdict.textContent = judge(
        answers.map(({ model }) => model),
        samples,
      )
    })
  }

  return { element, refresh, run, stop: composer.runner.stop, focus: composer.focus }
}

/** What the numbers say; nothing unless both answers ended. */
function judge([first, second]: ModelInfo[], [a, b]: (Sample | undefined)[]): string {
  if (!first || !second || !a || !b || a.tokens === 0 || b.tokens === 0) return ''
  const rate = (sample: Sample) => sample.tokens / Math.max(sample.seconds, 1e-3)
  const ratio = rate(a) / rate(b)
  const faster = ratio >= 1 ? first.id : second.id
  const times = Math.max(ratio, 1 / ratio).toFixed(2)
  const perForward = `${a.tokensPerForward.toFixed(2)} against ${b.tokensPerForward.toFixed(2)} tokens per forward`
  return `${faster} wrote ${times} × as many tokens per second, with ${perForward}: ${seconds(a.seconds)} and ${seconds(b.seconds)}. One request; the times are those of this browser.`
}
