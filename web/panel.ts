// The panel of settings and session: beside the page where there is room, over it elsewhere.
import { byId } from './dom.ts'

export interface Panel {
  /** Whether there is room for it beside the page. */
  readonly wide: MediaQueryList
  show(show: boolean): void
  /** Closes a panel that lies over the page; false where none does. */
  closeOverlay(): boolean
}

/** The panel of the page, with its two buttons. */
export function createPanel(): Panel {
  const panel = byId('panel', HTMLElement)
  const button = byId('panel-button', HTMLButtonElement)
  const closeButton = byId('panel-close', HTMLButtonElement)
  const wide = matchMedia('(min-width: 1080px)')
  const isOverlay = () => !panel.hidden && !wide.matches

  function show(show: boolean): void {
    document.documentElement.classList.toggle('panel-open', show)
    panel.hidden = !show
    button.setAttribute('aria-expanded', String(show))
  }

  function close(): void {
    show(false)
    button.focus()
  }

  button.addEventListener('click', () => {
    show(panel.hidden !== false)
    if (isOverlay()) closeButton.focus()
  })
  closeButton.addEventListener('click', close)
  return {
    wide,
    show,
    closeOverlay() {
      const closes = isOverlay()
      if (closes) close()
      return closes
    },
  }
}
