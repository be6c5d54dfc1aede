// Elements from plain calls. Text always becomes text: there is no way from a string to markup.

type Child = Node | string | number | undefined | null | false
type Handler = (event: never) => void
export type Props = Record<string, string | number | boolean | undefined | null | Handler>

function fill(element: Element, props: Props, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue
    if (typeof value === 'function') element.addEventListener(name.slice(2), value as EventListener)
    else element.setAttribute(name, value === true ? '' : String(value))
  }
  for (const child of children)
    if (child !== undefined && child !== null && child !== false)
      element.append(typeof child === 'number' ? String(child) : child)
}

/** An HTML element; a property `onclick` is a listener, all others are attributes, `false` and `undefined` are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  fill(element, props, children)
  return element
}

/** The same for SVG. */
export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  fill(element, props, children)
  return element
}

/** An element of the page. Throws where index.html lacks it. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`)
  return element
}

/** A symbol of 20 × 20, drawn as lines. */
export function icon(path: string): SVGElement {
  return s('svg', { viewBox: '0 0 20 20', class: 'icon', 'aria-hidden': 'true' }, s('path', { d: path }))
}

export const icons = {
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  play: 'M7 5l8 5-8 5z',
  pause: 'M7 5v10M13 5v10',
  swap: 'M4 7h12l-3-3M16 13H4l3 3',
  copy: 'M7 7V4h9v9h-3M4 7h9v9H4z',
  done: 'M4 10l4 4 8-8',
  close: 'M5 5l10 10M15 5L5 15',
  edit: 'M4 16l1-4 8-8 3 3-8 8z',
}

/** A button that copies and says so. */
export function copyButton(text: () => string): HTMLButtonElement {
  const label = h('span', {}, 'Copy')
  const button = h('button', { type: 'button', class: 'quiet', onclick: copy }, icon(icons.copy), label)
  async function copy(): Promise<void> {
    let said = 'Copied'
    try {
      await navigator.clipboard.writeText(text())
    } catch {
      // Without TLS, or refused: the text can still be selected.
      said = 'Copying is not allowed here'
    }
    label.textContent = said
    setTimeout(() => {
      label.textContent = 'Copy'
    }, 1600)
  }
  return button
}
