// A button that starts a generation and, while it runs, stops it.
import { h, icon, icons } from './dom.ts'

/** Why a generation ended that the user stopped. */
export const stopped = new DOMException('stopped', 'AbortError')

export interface Runner {
  button: HTMLButtonElement
  readonly running: boolean
  /** Runs work unless some runs. The work handles its own errors. */
  run(work: (signal: AbortSignal) => Promise<void>): Promise<void>
  stop(): void
  enable(enabled: boolean): void
}

export function createRunner(label: string, onClick: () => void): Runner {
  let controller: AbortController | undefined
  const text = h('span', {}, label)
  const symbol = h('span', { class: 'icons' }, icon(icons.send))
  const button = h('button', { type: 'button', class: 'primary', onclick: click }, symbol, text)
  let enabled = true

  function click(): void {
    if (controller) stop()
    else onClick()
  }
  function stop(): void {
    controller?.abort(stopped)
  }
  function show(): void {
    text.textContent = controller ? 'Stop' : label
    symbol.replaceChildren(icon(controller ? icons.stop : icons.send))
    button.classList.toggle('running', controller !== undefined)
    button.disabled = !enabled && !controller
  }
  return {
    button,
    get running() {
      return controller !== undefined
    },
    async run(work) {
      if (controller) return
      controller = new AbortController()
      show()
      try {
        await work(controller.signal)
      } finally {
        controller = undefined
        show()
      }
    },
    stop,
    enable(value) {
      enabled = value
      show()
    },
  }
}
