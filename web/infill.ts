// Infill: parts of a text are selected, masked, and filled by a diffusion model.
import { createAnswer, errorView } from './answer.ts'
import type { Context, Mode } from './context.ts'
import { h } from './dom.ts'
import { addHole, followEdit, type Hole, toParts } from './holes.ts'
import { createRunner } from './runner.ts'

const EXAMPLE = 'The people of the United States have always been ready to defend their liberty.'

export function createInfill(context: Context): Mode {
  const runner = createRunner('Fill', run)
  let holes: Hole[] = []
  let text = ''
  const backdrop = h('div', { class: 'backdrop', 'aria-hidden': 'true' })
  const field = h('textarea', {
    ...{
      id: 'infill-text',
      spellcheck: 'false',
      placeholder: 'Write or paste a text, then select what is to be filled in',
    },
    ...{ 'aria-label': 'Text', 'aria-describedby': 'infill-holes', oninput: edited },
  })
  const list = h('ul', { class: 'holes', id: 'infill-holes', 'aria-label': 'Masked parts' })
  const mask = h(
    'button',
    { type: 'button', title: 'Ctrl or ⌘ + M', onclick: () => void maskSelection() },
    'Mask selection',
  )
  const unmaskAll = h('button', { type: 'button', class: 'quiet', onclick: () => setHoles([]) }, 'Unmask all')
  const example = h('button', { type: 'button', class: 'quiet', onclick: showExample }, 'Example')
  const notice = h('p', { class: 'notice', hidden: true })
  const problem = h('div', {})
  const result = h('div', { class: 'result' })
  const use = h('button', { type: 'button', class: 'quiet', onclick: useResult }, 'Use as text')
  const element = h(
    'div',
    { class: 'mode infill' },
    h(
      'div',
      { class: 'scroller' },
      h(
        'div',
        { class: 'intro' },
        h('h2', {}, 'Fill in the middle'),
        h(
          'p',
          {},
          'Select words and mask them, as many places as you like. The model sees what stands before each place and some of what follows.',
        ),
      ),
      notice,
      h('div', { class: 'editor' }, backdrop, field),
      list,
      h(
        'div',
        { class: 'bar' },
        mask,
        unmaskAll,
        example,
        h('span', { class: 'hint keys' }, 'Ctrl + M masks, Ctrl + Enter fills'),
        runner.button,
      ),
      problem,
      result,
    ),
  )
  let answer: ReturnType<typeof createAnswer> | undefined

  field.addEventListener('keydown', (event) => {
    if (event.key.toLowerCase() !== 'm' || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    void maskSelection()
  })

  function edited(): void {
    setHoles(followEdit(holes, text, field.value))
  }

  function setText(value: string): void {
    field.value = value
    holes = []
    edited()
  }

  function setHoles(next: Hole[]): void {
    holes = next
    text = field.value
    draw()
  }

  function draw(): void {
    const parts: (Node | string)[] = []
    let at = 0
    for (const { start, end } of holes) {
      parts.push(text.slice(at, start), h('mark', {}, text.slice(start, end)))
      at = end
    }
    // A last line that is empty has a height only with something in it.
    parts.push(`${text.slice(at)}\u200b`)
    backdrop.replaceChildren(...parts)
    list.replaceChildren(...holes.map(holeItem))
    unmaskAll.hidden = holes.length === 0
    example.hidden = text !== ''
    refresh()
  }

  function holeItem(hole: Hole): HTMLElement {
    const name = text.slice(hole.start, hole.end).trim()
    const tokens = h('input', {
      ...{ type: 'number', min: 1, max: 512, step: 1, value: hole.tokens, 'aria-label': `Tokens for “${name}”` },
      onchange: (event: Event) => {
        const input = event.target as HTMLInputElement
        if (input.checkValidity() && input.value !== '') hole.tokens = Number(input.value)
        else input.value = String(hole.tokens)
      },
    })
    const remove = h('button', { type: 'button', class: 'quiet square', 'aria-label': `Unmask “${name}”` }, '×')
    remove.addEventListener('click', () => {
      setHoles(holes.filter((other) => other !== hole))
      field.focus()
    })
    return h('li', {}, h('s', {}, name), h('label', {}, tokens, 'tokens'), remove)
  }

  async function maskSelection(): Promise<void> {
    const model = context.model()
    const { selectionStart: start, selectionEnd: end } = field
    field.focus()
    problem.replaceChildren()
    if (!model || start === end) {
      if (model) problem.replaceChildren(h('p', { class: 'hint', role: 'status' }, 'Select some of the text first.'))
      return
    }
    const added = addHole(holes, text, { start, end, tokens: 1 })
    setHoles(added)
    field.setSelectionRange(end, end)
    const hole = added.find((candidate) => !(candidate.end <= start || candidate.start >= end))
    if (!hole) return
    try {
      // As many tokens as stand there now, unless somebody says otherwise.
      const count = await context.client.countTokens(model.id, text.slice(hole.start, hole.end))
      // The text may have been edited meanwhile; a hole that is still there has kept its tokens.
      for (const candidate of holes) if (candidate.start === hole.start) candidate.tokens = Math.max(1, count)
      draw()
    } catch (error) {
      problem.replaceChildren(errorView(context, error))
    }
  }

  function showExample(): void {
    setText(EXAMPLE)
    const start = EXAMPLE.indexOf('always been ready')
    field.setSelectionRange(start, start + 'always been ready'.length)
    void maskSelection()
  }

  function useResult(): void {
    if (answer) setText(answer.text())
    field.focus()
  }

  function run(): void {
    const model = context.model()
    if (!model || runner.running || holes.length === 0) return
    problem.replaceChildren()
    const parts = toParts(text, holes)
    const current = createAnswer(context, model, 'infill')
    answer = current
    result.replaceChildren(current.element)
    void runner.run(async (signal) => {
      try {
        const body = { model: model.id, parts, ...context.settings.fields(model) }
        current.end(await context.client.run({ path: '/v1/infill', body, most: 0, signal, onUpdate: current.update }))
        current.element.querySelector('.tools')?.prepend(use)
      } catch (error) {
        current.fail(error)
      }
    })
  }

  function refresh(): void {
    const model = context.model()
    notice.hidden = model?.mode !== 'ar'
    notice.textContent = `${model?.id} writes from left to right and cannot fill. Choose a diffusion model.`
    runner.enable(model !== undefined && model.mode !== 'ar' && holes.length > 0)
  }

  draw()
  return { element, refresh, run, stop: runner.stop, focus: () => field.focus() }
}
