// The tabs of a page: one mode at a time.
import type { Mode } from './context.ts'
import { h } from './dom.ts'

export interface Tabs {
  /** The mode that is shown. */
  current(): Mode
  show(index: number, focus?: boolean): void
}

/** Puts a tab for each mode into `tabs`, and the modes into `main`. `onShow` gets the name of the one that is shown. */
export function createTabs(
  modes: readonly { name: string; mode: Mode }[],
  { tabs, main, onShow = () => undefined }: { tabs: HTMLElement; main: HTMLElement; onShow?: (name: string) => void },
): Tabs {
  let current = 0

  function show(index: number, focus = true): void {
    current = index
    for (const [i, { mode }] of modes.entries()) {
      const tab = buttons[i]!
      tab.setAttribute('aria-selected', String(i === index))
      tab.tabIndex = i === index ? 0 : -1
      mode.element.hidden = i !== index
    }
    onShow(modes[index]!.name)
    if (focus) modes[index]!.mode.focus()
  }

  const buttons = modes.map(({ name }, index) =>
    h(
      'button',
      {
        ...{
          type: 'button',
          role: 'tab',
          id: `tab-${name.toLowerCase()}`,
          'aria-controls': `mode-${name.toLowerCase()}`,
        },
        ...{ title: `Alt + ${index + 1}`, onclick: () => show(index, false) },
      },
      name,
    ),
  )
  tabs.append(...buttons)
  tabs.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    if (step === undefined) return
    event.preventDefault()
    show((current + step + modes.length) % modes.length, false)
    buttons[current]!.focus()
  })
  for (const { name, mode } of modes) {
    const { element } = mode
    element.id = `mode-${name.toLowerCase()}`
    element.setAttribute('role', 'tabpanel')
    element.setAttribute('aria-labelledby', `tab-${name.toLowerCase()}`)
    main.append(element)
  }
  return { current: () => modes[current]!.mode, show }
}
