// The canvas: tokens where they stand, as they are unmasked, coloured by confidence; a slider over the steps.
import { h, icon, icons } from './dom.ts'
import { type Cell, cellsAt, levelNames, levelOf, type Recording } from './recording.ts'

export interface Canvas {
  element: HTMLElement
  /** Shows the newest step, unless the slider was moved back. */
  update(recording: Recording, running: boolean): void
}

/** Time between the steps of a replay, in milliseconds: all of it takes about four seconds. */
const pace = (steps: number): number => Math.min(400, Math.max(30, 4000 / Math.max(1, steps)))

export function createCanvas(label: string): Canvas {
  let recording: Recording | undefined
  let running = false
  let shown = 0
  let follow = true
  let frame = 0
  let timer: ReturnType<typeof setInterval> | undefined
  let focused = 0
  const drawn: { element: HTMLElement; key: string }[] = []

  const tokens = h('div', {
    ...{ class: 'tokens', role: 'listbox', 'aria-label': `${label}: arrow keys go from token to token` },
    ...{ onkeydown: moveFocus, onmouseover: tell, onfocusin: tell, onmouseleave: () => say('') },
  })
  const slider = h('input', { type: 'range', min: 0, max: 0, value: 0, 'aria-label': 'Step', oninput: slide })
  const stepText = h('output', { class: 'step' })
  const playLabel = h('span', { class: 'sr' }, 'Replay')
  const playIcon = h('span', { class: 'icons' }, icon(icons.play))
  const play = h('button', { type: 'button', class: 'quiet square', title: 'Replay the steps', onclick: toggle })
  play.append(playIcon, playLabel)
  const about = h('p', { class: 'about' })
  const element = h(
    'div',
    { class: 'canvas' },
    tokens,
    h('div', { class: 'replay' }, play, slider, stepText),
    h('div', { class: 'under' }, about, legend()),
  )

  function schedule(): void {
    if (frame === 0) frame = requestAnimationFrame(draw)
  }

  function draw(): void {
    frame = 0
    if (!recording) return
    const count = recording.steps.length
    if (follow) shown = count
    slider.max = String(count)
    slider.value = String(shown)
    slider.disabled = count === 0
    play.disabled = count === 0 || running
    slider.setAttribute('aria-valuetext', `step ${shown} of ${count}`)
    stepText.textContent = `step ${shown} of ${count}`
    const cells = cellsAt(recording, shown)
    for (const [index, cell] of cells.entries()) place(index, cell)
    for (const { element } of drawn.splice(cells.length)) element.remove()
  }

  function place(index: number, cell: Cell): void {
    const fresh = cell.kind === 'token' && cell.step === shown && (running || shown < recording!.steps.length)
    const key = `${cell.kind}\u0000${cell.text}\u0000${cell.step}\u0000${fresh}`
    let spot = drawn[index]
    if (spot?.key === key) return
    if (!spot) {
      const element = h('span', { role: 'option', tabindex: index === focused ? 0 : -1, 'data-index': index })
      tokens.append(element)
      spot = { element, key: '' }
      drawn.push(spot)
    }
    spot.key = key
    const { element } = spot
    const level = cell.confidence === undefined ? '' : ` l${levelOf(cell.confidence)}`
    element.className = `token ${cell.kind}${level}${fresh ? ' fresh' : ''}${cell.before === undefined ? '' : ' edited'}`
    element.textContent = visible(cell)
    const text = describe(cell, index)
    element.title = text
    element.setAttribute('aria-label', text)
  }

  function describe(cell: Cell, index: number): string {
    const name = cell.text === '' ? 'a token without text' : `“${cell.text.replaceAll('\n', '↵')}”`
    if (cell.kind === 'masked') return `masked · position ${index + 1}`
    if (cell.kind === 'given') return `${name} · given · position ${index + 1}`
    const replaced = cell.before === undefined ? '' : ` · replaced “${cell.before}”`
    return `${name} · confidence ${percent(cell.confidence!)} · step ${cell.step} · position ${index + 1}${replaced}`
  }

  function say(text: string): void {
    about.textContent = text
  }

  function tell(event: Event): void {
    if (!(event.target instanceof HTMLElement) || event.target.dataset.index === undefined) return
    say(event.target.title)
  }

  function moveFocus(event: KeyboardEvent): void {
    const to = { ArrowRight: focused + 1, ArrowLeft: focused - 1, Home: 0, End: drawn.length - 1 }[event.key]
    if (to === undefined || !drawn[to]) return
    event.preventDefault()
    drawn[focused]?.element.setAttribute('tabindex', '-1')
    focused = to
    drawn[focused]!.element.setAttribute('tabindex', '0')
    drawn[focused]!.element.focus()
  }

  function slide(): void {
    pause()
    shown = Number(slider.value)
    follow = running && shown === recording?.steps.length
    schedule()
  }

  function toggle(): void {
    if (timer !== undefined) {
      pause()
      return
    }
    const count = recording?.steps.length ?? 0
    if (shown >= count) shown = 0
    follow = false
    playIcon.replaceChildren(icon(icons.pause))
    playLabel.textContent = 'Pause'
    draw()
    timer = setInterval(() => {
      shown++
      if (shown >= count || !element.isConnected) pause()
      schedule()
    }, pace(count))
  }

  function pause(): void {
    clearInterval(timer)
    timer = undefined
    playIcon.replaceChildren(icon(icons.play))
    playLabel.textContent = 'Replay'
  }

  return {
    element,
    update(next, isRunning) {
      recording = next
      running = isRunning
      element.classList.toggle('running', running)
      schedule()
    },
  }
}

/** Spaces and line ends must be seen where a token is nothing else. */
function visible({ kind, text }: Cell): string {
  if (kind === 'masked') return '\u00a0'
  // Special tokens are no text: mostly the end.
  if (text === '' || /^<.*>$/.test(text)) return '∎'
  return text.replaceAll('\n', '↵\n')
}

export const percent = (share: number): string =>
  share > 0.9995 || share === 0 ? `${Math.round(share * 100)} %` : `${(share * 100).toFixed(1)} %`

function legend(): HTMLElement {
  const items = levelNames.map((name, level) =>
    h('li', {}, h('span', { class: `token l${level}`, 'aria-hidden': 'true' }, 'ab'), name),
  )
  return h('details', { class: 'legend' }, h('summary', {}, 'Colours'), h('ul', {}, ...items.reverse()))
}
