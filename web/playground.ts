// The playground: its tabs, the chosen model, the panel, the theme, the keyboard.
import { errorView } from './answer.ts'
import { createClient, type ModelInfo } from './api.ts'
import { createCharts } from './charts.ts'
import { createChat } from './chat.ts'
import { createCompare } from './compare.ts'
import type { Context, Mode } from './context.ts'
import { byId, h } from './dom.ts'
import { createInfill } from './infill.ts'
import { createPanel } from './panel.ts'
import { createRepair } from './repair.ts'
import type { Sample } from './session.ts'
import { createSettings } from './settings.ts'
import { createTabs } from './tabs.ts'
import { addThemeButton } from './theme.ts'

const modelSelect = byId('model', HTMLSelectElement)
const banner = byId('banner', HTMLDivElement)
const main = byId('main', HTMLElement)
const tabs = byId('tabs', HTMLElement)
const help = byId('help', HTMLDialogElement)

let models: readonly ModelInfo[] = []
const samples: Sample[] = []
const charts = createCharts()
let shownKey = ''
const settings = createSettings(() => {
  for (const { mode } of modes) mode.refresh()
  // Another key may see what the last one did not.
  if (settings.key() !== shownKey) void refresh()
})
const client = createClient(settings.key)
const context: Context = {
  client,
  settings,
  models: () => models,
  model: () => models.find(({ id }) => id === modelSelect.value),
  count(sample) {
    if (!sample) return
    samples.push(sample)
    charts.update(samples)
    // A model that was not loaded is now.
    if (context.model()?.mode === undefined) void refresh()
  },
  askKey() {
    panel.show(true)
    settings.askKey()
  },
  refresh,
}

const modes: readonly { name: string; mode: Mode }[] = [
  { name: 'Chat', mode: createChat(context) },
  { name: 'Infill', mode: createInfill(context) },
  { name: 'Repair', mode: createRepair(context) },
  { name: 'Compare', mode: createCompare(context) },
]

async function refresh(): Promise<void> {
  shownKey = settings.key()
  const chosen = modelSelect.value
  modelSelect.setAttribute('aria-busy', 'true')
  try {
    models = await client.models()
    banner.replaceChildren()
  } catch (error) {
    models = []
    banner.replaceChildren(errorView(context, error))
  }
  modelSelect.removeAttribute('aria-busy')
  modelSelect.disabled = models.length === 0
  const options = models.map(({ id, mode, state }) => {
    const about = state === 'unloaded' || !mode ? state : mode
    return h('option', { value: id, selected: id === chosen }, `${id} · ${about === 'ar' ? 'autoregressive' : about}`)
  })
  modelSelect.replaceChildren(...(options.length > 0 ? options : [h('option', { value: '' }, 'no model')]))
  for (const { mode } of modes) mode.refresh()
}

// Comparing chooses its own two.
const shown = createTabs(modes, { tabs, main, onShow: (name) => (modelSelect.hidden = name === 'Compare') })
byId('settings', HTMLElement).append(settings.element)
byId('session', HTMLElement).append(charts.element)
charts.update(samples)
modelSelect.addEventListener('change', () => {
  for (const { mode } of modes) mode.refresh()
})

const panel = createPanel()
panel.show(panel.wide.matches)
panel.wide.addEventListener('change', () => panel.show(panel.wide.matches))

addThemeButton(byId('theme', HTMLButtonElement))

byId('help-button', HTMLButtonElement).addEventListener('click', () => help.showModal())
byId('help-close', HTMLButtonElement).addEventListener('click', () => help.close())
document.addEventListener('keydown', (event) => {
  if (help.open || event.isComposing) return
  const typing = event.target instanceof HTMLElement && event.target.matches('input, textarea, select')
  const mode = shown.current()
  if (event.key === 'Escape') {
    if (!panel.closeOverlay()) mode.stop()
  } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) mode.run()
  else if (event.altKey && /^Digit[1-4]$/.test(event.code)) shown.show(Number(event.code.at(-1)) - 1)
  else if (event.key === '?' && !typing) help.showModal()
  else return
  event.preventDefault()
})

for (const { mode } of modes) mode.refresh()
shown.show(0, false)
await refresh()
if (panel.wide.matches) shown.current().focus()
